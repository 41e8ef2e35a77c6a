"""The output: parts and sidecars, what counts after a loss, the manifest and the merged file."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from configs.schema.inference import RowInput
from jobs.rewritten import find_rows
from tests.workers.conftest import read_csv, write_csv
from tests.workers.handlers import Outcome, upper
from workers.durable import SinkError
from workers.manifest import (
    CoverageError,
    check_coverage,
    choose,
    count_candidates,
    delete_others,
    load_plan,
    merge,
    remaining,
    save_plan,
    write_manifest,
)
from workers.messages import Task
from workers.sink import Part, Quarantined, Rewritten, Sink, read_part, read_parts
from workers.source import Plan, SourceError, make_plan, open_source

TEXTS = [f'comment {number}, "quoted"\nand more' for number in range(20)]


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    file = write_csv(tmp_path / "dump.csv", TEXTS)
    return make_plan(open_source(RowInput(path=str(file), text_column="comment")), 8)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def sink(plan: Plan, output: Path) -> Sink:
    return Sink(output, plan.source, "input")


def write_part(sink: Sink, plan: Plan, task: Task, *, generation: int = 1, delivery: int = 1) -> Part:
    rows = plan.source.read(task)
    return sink.write(task, rows, upper([row.text for row in rows]), generation=generation, delivery=delivery)


def test_parts_in_any_order_are_merged_into_the_rows_of_the_input(sink: Sink, plan: Plan, output: Path) -> None:
    for task in reversed(list(plan.tasks())):
        write_part(sink, plan, task)
    parts = choose(plan, read_parts(sink.folder))
    check_coverage(plan, parts)
    merged = merge(output, "dump.detoxified.csv", sink.header(), parts, epoch=1)
    assert read_csv(merged) == [(str(n), text, text.upper(), "rewritten") for n, text in enumerate(TEXTS)]
    assert merged.read_bytes().count(b"detoxified,distox_status") == 1, "one header"


def test_a_part_is_a_file_of_its_own_with_a_sidecar_that_says_what_it_holds(sink: Sink, plan: Plan) -> None:
    task = next(plan.tasks())
    rows = plan.source.read(task)
    outcomes: list[Rewritten] = [
        Outcome("a"),
        Outcome("b", "flagged", "blocked phrase"),
        *[Quarantined("empty output")] * 6,
    ]
    part = sink.write(task, rows, outcomes, generation=3, delivery=2)
    assert part.file == "part-0000000000-0000000007-g3-d2.csv"
    assert read_csv(sink.folder / part.file)[2] == ("2", TEXTS[2], "", "quarantined")
    assert read_part(sink.folder, part.sidecar) is not None
    sidecar = json.loads((sink.folder / part.sidecar).read_bytes())
    assert sidecar["counts"] == {"rewritten": 1, "flagged": 1, "quarantined": 6}
    assert sidecar["reasons"][:2] == [[1, "flagged", "blocked phrase"], [2, "quarantined", "empty output"]]
    assert not any(text in (sink.folder / part.sidecar).read_text() for text in TEXTS), "a sidecar holds no text"


@pytest.mark.parametrize("damage", ["part torn", "part gone", "sidecar torn", "sidecar of another version"])
def test_a_damaged_part_does_not_count(sink: Sink, plan: Plan, damage: str) -> None:
    part = write_part(sink, plan, next(plan.tasks()))
    file, sidecar = sink.folder / part.file, sink.folder / part.sidecar
    if damage == "part torn":
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "part gone":
        file.unlink()
    elif damage == "sidecar torn":
        sidecar.write_bytes(sidecar.read_bytes()[:-9])
    else:
        sidecar.write_text(json.dumps({**json.loads(sidecar.read_bytes()), "version": 99}))
    assert choose(plan, read_parts(sink.folder)) == []
    assert remaining(plan, []) == list(plan.tasks())


def test_of_several_deliveries_the_highest_fence_counts(sink: Sink, plan: Plan) -> None:
    task = next(plan.tasks())
    for generation, delivery in [(1, 2), (2, 1), (1, 9)]:
        write_part(sink, plan, task, generation=generation, delivery=delivery)
    (part,) = choose(plan, read_parts(sink.folder))
    assert (part.generation, part.delivery) == (2, 1)


def test_halves_count_above_their_whole_and_the_rest_of_it_is_planned_again(sink: Sink, plan: Plan) -> None:
    whole = next(plan.tasks())
    left, right = plan.source.halves(whole)
    quarter, rest = plan.source.halves(right)
    write_part(sink, plan, whole, delivery=2)
    write_part(sink, plan, left, delivery=3)
    write_part(sink, plan, rest, delivery=5)
    covered = choose(plan, read_parts(sink.folder))
    assert [(part.first_row, part.last_row) for part in covered] == [(0, 3), (6, 7)]
    todo = remaining(plan, covered)
    assert todo == [quarter, *list(plan.tasks())[1:]]
    for task in todo:
        write_part(sink, plan, task, generation=2)
    check_coverage(plan, choose(plan, read_parts(sink.folder)))


def test_a_part_of_another_plan_does_not_count(sink: Sink, plan: Plan) -> None:
    other = make_plan(plan.source, 10)
    write_part(sink, other, next(other.tasks()))
    assert choose(plan, read_parts(sink.folder)) == []


def test_parts_that_dont_cover_the_plan_are_refused(sink: Sink, plan: Plan) -> None:
    parts = [write_part(sink, plan, task) for task in plan.tasks()]
    with pytest.raises(CoverageError, match="row 8 is in no committed part"):
        check_coverage(plan, [parts[0], parts[2]])
    with pytest.raises(CoverageError, match="row 8 is in more than one"):
        check_coverage(plan, [parts[0], parts[0], *parts[1:]])
    with pytest.raises(CoverageError, match="end at row 16, the plan at 20"):
        check_coverage(plan, parts[:2])


def test_the_manifest_names_the_parts_in_order_and_others_are_deleted(sink: Sink, plan: Plan, output: Path) -> None:
    tasks = list(plan.tasks())
    old = write_part(sink, plan, tasks[0], generation=1)
    parts = [write_part(sink, plan, task, generation=2) for task in tasks]
    later = write_part(sink, plan, tasks[1], generation=3)
    (output / "_manifest-a1.json").write_text("{}")
    file = write_manifest(output, plan, parts, epoch=2)
    delete_others(output, parts, generation=2, epoch=2)
    content = json.loads(file.read_bytes())
    assert [output / part["file"] for part in content["parts"]] == [sink.folder / part.file for part in parts]
    assert content["num_rows"] == 20
    assert content["counts"] == {"rewritten": 20}
    assert not (sink.folder / old.file).exists()
    assert not (sink.folder / old.sidecar).exists()
    assert (sink.folder / later.file).exists(), "another attempt counts on it"
    assert not (output / "_manifest-a1.json").exists(), "it names parts that are gone"


def test_a_stored_plan_is_found_again(plan: Plan, output: Path) -> None:
    assert load_plan(output) is None
    save_plan(output, plan)
    assert load_plan(output) == plan


@pytest.mark.parametrize(("given", "asked"), [("csv", "jsonl"), ("jsonl", "csv"), ("jsonl", "tsv"), ("tsv", "jsonl")])
def test_rows_keep_their_columns_in_another_format(tmp_path: Path, output: Path, given: str, asked: str) -> None:
    file = tmp_path / f"dump.{given}"
    if given == "jsonl":
        file.write_text('{"id": 1, "comment": "a"}\n{"comment": "b", "more": {"x": 1}}\n')
    else:
        file.write_text("id\tcomment\n1\ta\n2\tb\n".replace("\t", "," if given == "csv" else "\t"))
    plan = make_plan(open_source(RowInput(path=str(file), text_column="comment")), 10)
    sink = Sink(output, plan.source, asked)
    task = next(plan.tasks())
    rows = plan.source.read(task)
    part = sink.write(task, rows, [Outcome("A"), Quarantined("why")], generation=1, delivery=1)
    text = (sink.folder / part.file).read_text()
    if asked == "jsonl":
        assert [json.loads(line) for line in text.splitlines()] == [
            {"id": "1", "comment": "a", "detoxified": "A", "distox_status": "rewritten"},
            {"id": "2", "comment": "b", "detoxified": None, "distox_status": "quarantined"},
        ]
    else:
        comma = "," if asked == "csv" else "\t"
        more = '"{""x"": 1}"'
        assert text.replace(comma, "|").splitlines() == [
            "id|comment|more|detoxified|distox_status",
            "1|a||A|rewritten",
            f"|b|{more}||quarantined",
        ]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_further_rewrites_have_columns_of_their_own_and_rows_with_fewer_leave_them_empty(
    output: Path, plan: Plan, kind: str
) -> None:
    sink = Sink(output, plan.source, kind, num_rewrites=3)
    task = next(plan.tasks())
    rows = plan.source.read(task)
    outcomes: list[Rewritten] = [
        Outcome("a", others=("b", "c")),
        Outcome("a", others=("b",), dropped=("style",)),
        Outcome(None, "flagged", "no candidate kept", dropped=("copy", "style", "style")),
        *[Quarantined("empty output")] * 5,
    ]
    part = sink.write(task, rows, outcomes, generation=1, delivery=1)
    written = (sink.folder / part.file).read_text()
    names = ["detoxified", "detoxified_2", "detoxified_3", "distox_status"]
    if kind == "csv":
        table = list(csv.DictReader(io.StringIO(written)))
        empty: str | None = ""
    else:
        table, empty = [json.loads(line) for line in written.splitlines()], None
    assert list(table[0]) == ["id", "comment", *names]
    assert [[row[name] for name in names] for row in table[:4]] == [
        ["a", "b", "c", "rewritten"],
        ["a", "b", empty, "rewritten"],
        [empty, empty, empty, "flagged"],
        [empty, empty, empty, "quarantined"],
    ]
    assert part.candidates == {"kept": 5, "style": 3, "copy": 1}


@pytest.mark.parametrize("is_merged", [True, False])
def test_the_manifest_says_where_the_rows_are_and_which_column_was_rewritten(
    sink: Sink, plan: Plan, output: Path, is_merged: bool
) -> None:
    for task in plan.tasks():
        write_part(sink, plan, task)
    parts = choose(plan, read_parts(sink.folder))
    name = "dump.detoxified.csv" if is_merged else None
    rows = write_manifest(output, plan, parts, epoch=3, merged=name)
    if name is not None:
        rows = merge(output, name, sink.header(), parts, epoch=3)
    found = find_rows(rows)
    assert found is not None
    assert found.text_column == "comment"
    assert found.files == ((rows,) if is_merged else tuple(sink.folder / part.file for part in parts))
    assert count_candidates(parts) == {"kept": len(TEXTS)}
    assert find_rows(output / "other.csv") is None


def test_columns_that_a_format_cant_hold_are_refused(tmp_path: Path, output: Path) -> None:
    file = tmp_path / "dump.csv"
    file.write_text("id,id,comment\n1,2,a\n")
    source = open_source(RowInput(path=str(file), text_column="comment"))
    with pytest.raises(SourceError, match=r"'id' .* twice; rename one"):
        Sink(output, source, "jsonl")
    Sink(output, source, "csv")


def test_the_line_ends_of_the_input_are_kept(tmp_path: Path, output: Path) -> None:
    file = tmp_path / "dump.csv"
    file.write_bytes(b"id,comment\r\n1,a\r\n")
    plan = make_plan(open_source(RowInput(path=str(file), text_column="comment")), 10)
    part = write_part(Sink(output, plan.source, "input"), plan, next(plan.tasks()))
    assert (output / "parts" / part.file).read_bytes() == (
        b"id,comment,detoxified,distox_status\r\n1,a,A,rewritten\r\n"
    )


def fail_after(monkeypatch: pytest.MonkeyPatch, num_syncs: int, code: int = errno.ENOSPC) -> None:
    """Let the disk be full from the n-th file on: a full disk says so when a file is synced at the latest."""
    calls: list[int] = []
    real = os.fsync

    def sync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > num_syncs:
            raise OSError(code, os.strerror(code))
        real(descriptor)

    monkeypatch.setattr("workers.durable.os.fsync", sync)


@pytest.mark.parametrize("num_syncs", [0, 1])
def test_a_full_disk_is_said_with_the_remedy_and_leaves_no_half_of_a_file(
    sink: Sink, plan: Plan, monkeypatch: pytest.MonkeyPatch, num_syncs: int
) -> None:
    before = write_part(sink, plan, next(plan.tasks()))
    with monkeypatch.context() as patched:
        fail_after(patched, num_syncs)
        with pytest.raises(SinkError, match=r"disk of the output folder .* is full .* free some space"):
            write_part(sink, plan, list(plan.tasks())[1])
    assert choose(plan, read_parts(sink.folder)) == [before], "nothing of it counts, what was there does"


@pytest.mark.parametrize("what", ["manifest", "merge", "plan"])
def test_what_cant_be_written_whole_isnt_there_at_all(
    sink: Sink, plan: Plan, output: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    parts: Sequence[Part] = [write_part(sink, plan, task) for task in plan.tasks()]
    before = sorted(output.iterdir())
    writers: dict[str, Any] = {
        "manifest": lambda: write_manifest(output, plan, parts, epoch=1),
        "merge": lambda: merge(output, "dump.detoxified.csv", sink.header(), parts, epoch=1),
        "plan": lambda: save_plan(output, plan),
    }
    with monkeypatch.context() as patched:
        fail_after(patched, 0)
        with pytest.raises(SinkError, match="full"):
            writers[what]()
    assert sorted(output.iterdir()) == before
