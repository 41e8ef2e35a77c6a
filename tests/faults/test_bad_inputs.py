"""Bad input as its giver sees it: the message with field, value and remedy, the exit code, and the run in the store."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cluster.attempt import record
from cluster.remote import Assignment, Outcome, outcome_of, run_job
from cluster.runs import Cause, Run, State
from cluster.store import Store
from configs.load import dump_spec, validate_spec
from configs.schema.kinds import Detoxify
from tests.faults.wrong_runs import NO_COMPILER, NO_HUB, WRONG_DUMPS, WRONG_RUNS, Material, Spec, WrongRun
from tests.live_stack import ROOT, user_environment
from workers.pool import load_detoxifier
from workers.source import make_plan, open_source

DISTILL = "kind: distill\ndataset: {name: a}\nteacher_model: {name: t}\nstudent_model: {name: s}\n"
WRONG_SPECS = {
    "an unknown key": (DISTILL + "los: {}\n", ("los", "no key of a spec", "did you mean loss?")),
    "a word for a number": (DISTILL + "training: {epochs: three}\n", ('training.epochs = "three"', "write a number")),
    "a number for a word": (DISTILL + "name: 3\n", ("name = 3", "is no text", "quote it")),
    "a list for a section": (DISTILL + "loss: [1]\n", ("loss = [1]", "isn't keys and values", "write keys and values")),
    "a negative temperature": (
        DISTILL + "loss: {temperature: -1.5}\n",
        ("loss.temperature = -1.5", "is too small", "greater than 0"),
    ),
    "a split above the whole": (
        "kind: prepare\ndataset: {name: a, split: {train: 0.9, test: 0.2}}\n",
        ("dataset.split.train = 0.9", "with test 0.2 it is 1.1 of the data", "sum to at most 1"),
    ),
    "deepspeed of no stage": (
        DISTILL + "training: {deepspeed: zero4}\n",
        ('training.deepspeed = "zero4"', "zero1, zero2"),
    ),
    "half precision": (DISTILL + "training: {fp16: true}\n", ("training.fp16 = true", "overflows", "precision: auto")),
    "an empty file": ("", ("spec.yaml", "is empty", "write a spec with a kind")),
    "no YAML": ("kind: [\n", ("line 2", "not YAML", "correct the line")),
    "no file": (None, ("spec.yaml", "no such file", "did you mean", "spek.yaml")),
}
COMMANDS = {
    "validate": "from api.cli.main import app; call = lambda: app(['validate', sys.argv[1]])",
    "distox submit": "from api.cli.main import app; call = lambda: app(['submit', sys.argv[1]])",
    "cluster.submit": "from cluster.submit import main; call = lambda: sys.exit(main([sys.argv[1]]))",
}
PROCESS = """
import sys
%s
try:
    call()
except SystemExit as end:
    print("heavy:", sorted({"torch", "ray", "transformers"} & set(sys.modules)))
    raise
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    Store.open(f"sqlite:///{tmp_path / 'store.sqlite'}", migrate=True).close()
    return tmp_path


def call(command: str, home: Path) -> subprocess.CompletedProcess[str]:
    """One of the commands in a process of its own, which says at its end whether anything heavy was imported."""
    return subprocess.run(
        [sys.executable, "-c", PROCESS % COMMANDS[command], str(home / "spec.yaml")],
        env=user_environment(home),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("name", WRONG_SPECS)
def test_a_wrong_spec_is_answered_with_its_fault_before_anything_heavy_is_loaded_and_leaves_no_run(
    name: str, home: Path
) -> None:
    text, told = WRONG_SPECS[name]
    (home / "spek.yaml").touch()
    if text is not None:
        (home / "spec.yaml").write_text(text)
    done = call("cluster.submit", home)
    assert done.returncode == 2
    assert [words for words in told if words not in done.stderr] == [], done.stderr
    assert "heavy: []" in done.stdout
    assert "Traceback" not in done.stderr
    store = Store.open(f"sqlite:///{home / 'store.sqlite'}")
    assert store.list() == []
    store.close()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_takes_a_spec_tells_all_its_faults(command: str, home: Path) -> None:
    (home / "spec.yaml").write_text(DISTILL + "los: {}\nloss: {temperature: -1}\ntraining: {epochs: three}\n")
    done = call(command, home)
    assert done.returncode == 2
    told = ("did you mean loss?", "loss.temperature = -1", 'training.epochs = "three"')
    assert [words for words in told if words not in done.stderr] == [], done.stderr
    assert "heavy: []" in done.stdout


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return Material.make(tmp_path_factory.mktemp("material"))


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """No network and no compiler; and what a worker sets for its process is set back."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", NO_HUB)
    monkeypatch.setenv("CXX", NO_COMPILER)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "1")


def attempt(store: Store, url: str, spec: Spec, output: Path) -> Run:
    """What an attempt's worker and driver do with a run, without Ray between them."""
    run = store.enqueue(store.submit(validate_spec(spec), owner="local").id)
    epoch = store.begin_attempt(run.id)
    store.start(run.id, epoch)
    output.mkdir(exist_ok=True)
    given = Assignment(run.id, epoch, url, store.store_id, dump_spec(validate_spec(spec)), str(output), 1)
    record(store, run.id, epoch, Outcome.from_dict(run_job(given)), output)
    return store.get(run.id)


@pytest.mark.usefixtures("bare_machine")
@pytest.mark.parametrize("wrong", WRONG_RUNS, ids=lambda wrong: wrong.name)
def test_what_only_the_job_can_see_fails_the_run_at_once_with_the_reason(
    wrong: WrongRun, material: Material, home: Path
) -> None:
    url = f"sqlite:///{home / 'store.sqlite'}"
    store = Store.open(url)
    run = attempt(store, url, wrong.spec(material), home / "output")
    store.close()
    # One more attempt was left to it, and trying again is no use.
    assert (run.state, run.epoch, validate_spec(run.spec).retries.errors) == (State.FAILED, 1, 1)
    reason = run.reason or ""
    assert [words for words in wrong.told if words not in reason] == [], reason
    assert "\n" not in reason


@pytest.mark.parametrize("wrong", WRONG_DUMPS, ids=lambda wrong: wrong.name)
def test_a_wrong_dump_is_no_use_to_try_again_and_says_why(wrong: WrongRun, material: Material) -> None:
    spec = validate_spec(wrong.spec(material))
    assert isinstance(spec, Detoxify)

    def begin() -> None:
        make_plan(open_source(spec.input), spec.queue.rows_per_task)
        load_detoxifier(dump_spec(spec), 1)

    with pytest.raises(ValueError, match=r"\w") as caught:
        begin()
    outcome = outcome_of(caught.value)
    assert outcome.cause is Cause.WRONG_INPUT
    assert [words for words in wrong.told if words not in (outcome.error or "")] == [], outcome.error


def test_a_run_succeeds_once_its_input_was_mended(material: Material, home: Path, bare_machine: None) -> None:
    url = f"sqlite:///{home / 'store.sqlite'}"
    store = Store.open(url)
    late = home / "late.csv"
    spec = material.prepare(source_column="toxic")
    spec["dataset"]["name"] = str(late)
    assert attempt(store, url, spec, home / "first").state is State.FAILED
    assert [path.name for path in (home / "first").iterdir()] == ["_started"]
    late.write_bytes((material.folder / "pairs.csv").read_bytes())
    assert attempt(store, url, spec, home / "second").state is State.SUCCEEDED
    assert (home / "second" / "dataset" / "dataset.json").is_file()
    store.close()
