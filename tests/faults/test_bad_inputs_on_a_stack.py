"""Bad input and a full disk through a whole stack: what the command says, its exit code, and that nothing is lost."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.runs import Run, State
from tests.faults.small_disk import free, small_disk
from tests.faults.wrong_runs import NO_COMPILER, NO_HUB, WRONG_DUMPS, WRONG_RUNS, Material, Spec
from tests.jobs import tiny
from tests.live_stack import DISTOX, ROOT, LiveStack, live_stack, user_environment
from tests.waiting import wait_until

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

ON_THE_STACK = (
    "a hub dataset without a network",
    "a system that is no model",
    "deepspeed without a compiler",
    "a dump that isn't there",
    "a text column that isn't there",
    "a dump with a model that is none",
)
"""Some for each way a job runs and each thing the stack's environment decides; the others are tried without a stack."""
NUM_ROWS = 1500
FULL = "is full (No space left on device); free some space"


@pytest.fixture(scope="module")
def stack() -> Iterator[LiveStack]:
    with live_stack(num_cpus=2, HF_ENDPOINT=NO_HUB, CXX=NO_COMPILER) as running:
        yield running


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return Material.make(tmp_path_factory.mktemp("material"))


def start(stack: LiveStack, spec: Spec) -> subprocess.Popen[str]:
    """``distox submit``, not waited for."""
    return subprocess.Popen(
        [str(DISTOX), "submit", str(stack.write_spec(spec))],
        env=user_environment(stack.home),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run_in(stack: LiveStack, said: str) -> Run:
    """The run that a command's output names."""
    return stack.store.get(next(line for line in said.splitlines() if line.startswith("submitted")).split()[-1])


def test_every_wrong_input_ends_its_run_with_the_reason_and_exit_code_1(stack: LiveStack, material: Material) -> None:
    wrong = [item for item in (*WRONG_RUNS, *WRONG_DUMPS) if item.name in ON_THE_STACK]
    commands = [start(stack, item.spec(material)) for item in wrong]
    ends = [(command.communicate(timeout=400)[0], command.returncode) for command in commands]
    faults = []
    for item, (said, code) in zip(wrong, ends, strict=True):
        run = run_in(stack, said)
        missing = [words for words in item.told if words not in (run.reason or "")]
        unsaid = " ".join((run.reason or "no reason").split()) not in " ".join(said.split())
        if missing or unsaid or (code, run.state, run.epoch) != (1, State.FAILED, 1):
            faults.append((item.name, missing, said, code, run.state, run.epoch))
    assert faults == []
    assert len(ends) == len(ON_THE_STACK)


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("dump") / "dump.csv"
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "comment"])
        words = tiny.words()
        writer.writerows([n, f"{words[n % len(words)]} {words[n % 7]} number {n}"] for n in range(NUM_ROWS))
    return file


def detoxify(material: Material, dump: Path, output: Path, *, errors: int) -> Spec:
    return {
        "kind": "detoxify",
        "model": {"name": material.path("model")},
        "input": {"path": str(dump), "text_column": "comment"},
        "max_length": 16,
        "decoding": {"num_beams": 1, "max_new_tokens": 16},
        "queue": {"rows_per_task": 100},
        "retries": {"errors": errors},
        "output": str(output),
    }


def assert_each_row_came_out_once(stack: LiveStack, run: Run, dump: Path) -> None:
    def rows(file: Path) -> list[tuple[str, str]]:
        with file.open(encoding="utf-8", newline="") as stream:
            return [(row["id"], row["comment"]) for row in csv.DictReader(stream)]

    assert rows(stack.artifact(run, "rows")) == rows(dump)
    manifest = json.loads(stack.artifact(run, "manifest").read_text("utf-8"))
    assert sum(part["last_row"] - part["first_row"] + 1 for part in manifest["parts"]) == NUM_ROWS


def test_a_disk_that_is_full_fails_the_run_with_the_remedy_and_the_next_one_has_every_row_once(
    stack: LiveStack, material: Material, dump: Path, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", kilobytes=1500, free_kilobytes=60) as disk:
        spec = detoxify(material, dump, disk, errors=0)
        run, done = stack.submit(spec)
        assert (done.returncode, run.state) == (1, State.FAILED)
        assert FULL in (run.reason or "")
        assert FULL in " ".join((done.stdout + done.stderr).split())
        assert stack.store.artifacts(run.id) == []
        free(disk)
        again, done = stack.submit(spec)
        assert (done.returncode, again.state) == (0, State.SUCCEEDED), done.stdout + done.stderr
        assert_each_row_came_out_once(stack, again, dump)


def test_a_run_that_is_tried_again_goes_on_from_what_was_written_before_the_disk_was_full(
    stack: LiveStack, material: Material, dump: Path, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", kilobytes=1500, free_kilobytes=60) as disk:
        command = start(stack, detoxify(material, dump, disk, errors=9))

        def failed() -> list[Run]:
            return [run for run in stack.store.list(kind="detoxify") if run.errors and str(disk) in str(run.spec)]

        wait_until(lambda: bool(failed()), 200, "an attempt meets the full disk")
        kept = {path.name for path in disk.glob("r-*/rows/parts/*-g1-*.csv")}
        free(disk)
        said = command.communicate(timeout=300)[0]
        run = run_in(stack, said)
        assert (command.returncode, run.state) == (0, State.SUCCEEDED), said
        assert run.epoch > 1
        assert any(FULL in (event.message or "") for event in stack.store.events(run.id))
        assert_each_row_came_out_once(stack, run, dump)
        used = json.loads(stack.artifact(run, "manifest").read_text("utf-8"))["parts"]
        assert kept & {Path(part["file"]).name for part in used}, "what was committed was done again"


def test_a_training_that_meets_a_full_disk_says_so(stack: LiveStack, material: Material, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", kilobytes=200, free_kilobytes=20) as disk:
        spec = {**material.finetune(material.path("model")), "output": str(disk), "retries": {"errors": 0}}
        run, done = stack.submit(spec)
        assert (done.returncode, run.state) == (1, State.FAILED)
        reason = run.reason or ""
        assert "No space left on device" in reason
        assert reason.count("free some space") == 1, reason


ODD_CSV = (
    'id,comment\n1,he likes a plan\n\n2\n3,too,many\n4,"two\nlines"\n5,\n6,  \n7,"never closed\n8,they see the road\n'
)
ODD_JSONL = (
    '{"id": 1, "comment": "he likes a plan"}\n'
    '{"comment": "they see the road", "tags": ["x"]}\n'
    "\n"
    "{broken\n"
    '{"id": 4}\n'
    '{"id": 5, "comment": null}\n'
    '{"id": 6, "comment": 7}\n'
    '{"id": 7, "comment": "", "late": 1.5}\n'
)


def reasons_of(stack: LiveStack, run: Run) -> dict[int, str]:
    """Row → why it was quarantined, by the sidecars."""
    manifest = stack.artifact(run, "manifest")
    parts = [manifest.parent / part["file"] for part in json.loads(manifest.read_text("utf-8"))["parts"]]
    sidecars = [json.loads(part.with_suffix(".json").read_text("utf-8")) for part in parts]
    return {row: why for item in sidecars for row, status, why in item["reasons"] if status == "quarantined"}


def odd(material: Material, file: Path, **rows: str) -> Spec:
    return {**detoxify(material, file, file.parent / "out", errors=0), "rows": rows, "queue": {"rows_per_task": 3}}


def test_blank_and_ragged_rows_come_out_in_their_places_or_are_quarantined_with_a_reason(
    stack: LiveStack, material: Material, tmp_path: Path
) -> None:
    file = tmp_path / "odd.csv"
    file.write_text(ODD_CSV)
    run, done = stack.submit(odd(material, file))
    assert run.state is State.SUCCEEDED, done.stdout + done.stderr
    with stack.artifact(run, "rows").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["id"] for row in rows] == ["1", "2", "3", "4", "5", "6", "", "8"]
    assert [row["comment"] for row in rows[3:6]] == ["two\nlines", "", "  "]
    assert [row["distox_status"] for row in rows[4:6]] == ["passed", "passed"]
    reasons = reasons_of(stack, run)
    assert reasons[1] == "1 cells where the header has 2"
    assert reasons[2] == "3 cells where the header has 2"
    assert reasons[6] == "unclosed quote"
    assert all(rows[number]["distox_status"] == "quarantined" for number in (1, 2, 6))
    assert {0, 7}.isdisjoint(reasons)


def test_json_rows_with_differing_keys_keep_their_own_and_a_table_of_them_has_all(
    stack: LiveStack, material: Material, tmp_path: Path
) -> None:
    file = tmp_path / "odd.jsonl"
    file.write_text(ODD_JSONL)
    commands = [start(stack, odd(material, file)), start(stack, odd(material, file, format="csv"))]
    lines, table = (run_in(stack, command.communicate(timeout=300)[0]) for command in commands)
    assert (lines.state, table.state) == (State.SUCCEEDED, State.SUCCEEDED)
    written = [json.loads(line) for line in stack.artifact(lines, "rows").read_text("utf-8").splitlines()]
    kept = [{key: value for key, value in row.items() if key not in ("detoxified", "distox_status")} for row in written]
    given = [line for line in ODD_JSONL.splitlines() if line]
    assert kept == [{} if line == "{broken" else json.loads(line) for line in given]
    reasons = reasons_of(stack, lines)
    assert {row: reasons[row] for row in (2, 3, 4, 5)} == {
        2: "not JSON (JSONDecodeError)",
        3: "no such key as the text column",
        4: "no text but NoneType",
        5: "no text but int",
    }
    assert (written[6]["detoxified"], written[6]["distox_status"]) == ("", "passed")
    assert all(written[row]["detoxified"] is None for row in (2, 3, 4, 5))
    with stack.artifact(table, "rows").open(encoding="utf-8", newline="") as stream:
        cells = list(csv.DictReader(stream))
    assert list(cells[0]) == ["id", "comment", "tags", "late", "detoxified", "distox_status"]
    assert [row["id"] for row in cells] == ["1", "", "", "4", "5", "6", "7"]
    assert (cells[1]["tags"], cells[6]["late"], cells[5]["comment"]) == ('["x"]', "1.5", "7")
    assert {row: reasons_of(stack, table)[row] for row in (2, 3, 4, 5)} == {row: reasons[row] for row in (2, 3, 4, 5)}
