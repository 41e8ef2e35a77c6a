"""``ray job submit`` from another shell, typed as the README says it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.runs import Run, State
from cluster.store import Store
from tests.stack_home import TINY_SPEC, StackHome, stack_home, training_spec
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.soak, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def stack() -> Iterator[StackHome]:
    """A running stack whose home is in the folder that is submitted, which is the default."""
    with stack_home(home="work/.distox") as home:
        done = home.distox("up", "--num-cpus", "1")
        assert done.returncode == 0, done.stdout + done.stderr
        yield home
        assert home.distox("down").returncode == 0


@pytest.fixture(scope="module")
def store(stack: StackHome) -> Iterator[Store]:
    opened = Store.open(f"sqlite:///{stack.home / 'store.sqlite'}")
    yield opened
    opened.close()


def bash(stack: StackHome, command: str, *, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command in another shell, which was pointed at the stack."""
    script = f'set -e\neval "$(distox env)"\ncd {folder or stack.work}\n{command}'
    return stack.run(["bash", "-c", script])


def newest(store: Store) -> Run:
    return store.list(top_level=True, limit=1)[0]


def uploads(stack: StackHome) -> list[Path]:
    """What Ray was given as working directories, oldest first."""
    folders = stack.folder.glob("dx*/ray/session_latest/runtime_resources/working_dir_files/*/")
    return sorted(folders, key=lambda folder: folder.stat().st_mtime)


def test_a_spec_that_is_submitted_from_another_shell_becomes_a_run_that_everybody_sees(
    stack: StackHome, store: Store
) -> None:
    stack.write("tiny.yaml", TINY_SPEC)
    done = bash(stack, "ray job submit --working-dir . -- python -m cluster.submit tiny.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    run = newest(store)
    assert (run.name, run.owner, run.state) == ("tiny", "local", State.SUCCEEDED)
    assert f"submitted pipeline tiny as {run.id}" in done.stdout
    assert (run.submission_id or "") in done.stdout
    listed = stack.distox("list")
    assert (listed.returncode, run.id in listed.stdout) == (0, True), listed.stderr
    # The home is in the folder that was submitted, with its keys and with all models: it stays there.
    assert sorted(item.name for item in uploads(stack)[-1].iterdir()) == ["tiny.yaml"]
    asked = bash(stack, 'curl -s -H "Authorization: Bearer $DISTOX_API_KEY" "$DISTOX_API_URL/v1/runs?state=SUCCEEDED"')
    assert run.id in asked.stdout, asked.stderr


def test_the_exit_code_is_not_0_when_the_spec_is_wrong_or_the_run_fails(stack: StackHome, store: Store) -> None:
    stack.write("wrong.yaml", "kind: prepare\nnam: x\ndataset: {name: sample}\n")
    before = newest(store).id if store.list() else None
    wrong = bash(stack, "ray job submit --working-dir . -- python -m cluster.submit wrong.yaml")
    assert (wrong.returncode, "did you mean name?" in wrong.stdout) == (1, True), wrong.stdout + wrong.stderr
    assert (newest(store).id if store.list() else None) == before

    columns = "{name: pairs.tsv, source_column: toxic, target_column: neutral}"
    stack.write("failing.yaml", f"kind: prepare\nname: failing\ndataset: {columns}\n")
    stack.write("pairs.tsv", "toxic\tpolite\nyou fool\tdear sir\n")
    failing = bash(stack, "ray job submit --working-dir . -- python -m cluster.submit failing.yaml")
    assert failing.returncode == 1, failing.stdout + failing.stderr
    run = newest(store)
    assert (run.name, run.state) == ("failing", State.FAILED)
    assert "polite" in (run.reason or "")
    assert f"{run.id} failed: {run.reason}" in failing.stdout


def test_ray_job_stop_cancels_the_run(stack: StackHome, store: Store) -> None:
    stack.write("long.yaml", training_spec(max_steps=1_000_000))
    submitted = bash(
        stack, "ray job submit --no-wait --submission-id mine --working-dir . -- python -m cluster.submit long.yaml"
    )
    assert submitted.returncode == 0, submitted.stderr

    def trains() -> bool:
        run = store.find_submission("local", "mine")
        if run is None:
            return False
        assert not run.state.is_terminal, run.reason
        return any(step.kind == "finetune" and step.state is State.RUNNING for step in store.list(parent=run.id))

    wait_until(trains, 120, "the training step runs")
    stopped = bash(stack, "ray job stop mine")
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    run = store.find_submission("local", "mine")
    assert run is not None
    wait_until(lambda: store.get(run.id).state is State.CANCELLED, 60, "the run is cancelled")
    assert {step.state for step in store.list(parent=run.id)} == {State.SUCCEEDED, State.CANCELLED}


def test_this_checkout_is_submitted_without_its_environment_its_history_and_its_home(stack: StackHome) -> None:
    done = bash(stack, "ray job submit --working-dir . -- python -m cluster.submit --help", folder=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "usage: python -m cluster.submit" in done.stdout
    uploaded = uploads(stack)[-1]
    assert not {".venv", ".git", ".distox"} & {item.name for item in uploaded.iterdir()}
    assert (uploaded / "cluster" / "submit.py").exists()
    assert sum(file.stat().st_size for file in uploaded.rglob("*") if file.is_file()) < 20_000_000
