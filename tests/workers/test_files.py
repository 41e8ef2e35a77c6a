"""Source and sink: record borders, row ranges, parts and the merged file."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from configs.schema.inference import RowInput
from jobs.detoxify import Rewrite, Status
from workers.sink import Sink
from workers.source import Source, SourceError, open_source

ROWS = [("1", "plain"), ("2", 'a "quoted" word'), ("3", "two\nlines, and a comma"), ("4", ""), ("5", "ünïcode")]


@pytest.fixture
def source(tmp_path: Path) -> Source:
    file = tmp_path / "dump.csv"
    with file.open("w", encoding="utf-8-sig", newline="") as stream:
        csv.writer(stream).writerows([("id", "text"), *ROWS])
    return open_source(RowInput(path=str(file)))


@pytest.mark.parametrize("rows_per_task", [1, 2, 5, 100])
def test_every_row_is_in_one_range_however_the_file_is_cut(source: Source, rows_per_task: int) -> None:
    plan = list(source.plan(rows_per_task))
    rows = [(row["id"], row["text"]) for task in plan for row in source.read(task)]
    assert rows == ROWS
    assert [task.first_row for task in plan] == list(range(0, 5, rows_per_task))


def test_the_merged_file_holds_every_row_once_with_all_its_columns(source: Source, tmp_path: Path) -> None:
    sink = Sink(tmp_path / "out", source, "input")
    for task in source.plan(2):
        rows = source.read(task)
        rewrites = [Rewrite(row["text"].upper(), Status.REWRITTEN) for row in rows]
        sink.write_part(task, rows, rewrites, generation=1, delivery=1)
        sink.write_part(task, rows, rewrites, generation=1, delivery=2)
    parts = sink.parts()
    assert {part.delivery for part in parts} == {2}, "the highest fence counts"
    sink.finish(parts, epoch=1)
    merged = sink.merge(parts, epoch=1)
    with merged.open(encoding="utf-8", newline="") as stream:
        found = [(row["id"], row["text"], row["detoxified"], row["distox_status"]) for row in csv.DictReader(stream)]
    assert found == [(number, text, text.upper(), "rewritten") for number, text in ROWS]
    assert len(list((tmp_path / "out").glob("part-*.csv"))) == len(parts)


def test_a_damaged_part_is_not_taken(source: Source, tmp_path: Path) -> None:
    sink = Sink(tmp_path / "out", source, "input")
    task = next(source.plan(100))
    rewrites = [Rewrite("x", Status.REWRITTEN)] * 5
    part = sink.write_part(task, source.read(task), rewrites, generation=1, delivery=1)
    (tmp_path / "out" / part.file).write_text("torn", "utf-8")
    assert sink.parts() == []


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("gone.csv", None, "no such file"),
        ("empty.csv", "", "is empty"),
        ("other.csv", "id,comment\n1,a\n", "it has|has id, comment"),
        ("strange.xml", "<a/>", "unknown ending"),
    ],
)
def test_a_wrong_input_is_named_with_a_remedy(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text, "utf-8")
    with pytest.raises(SourceError, match=message):
        open_source(RowInput(path=str(tmp_path / name)))


def test_an_input_that_changed_stops_the_run(source: Source) -> None:
    with source.path.open("a", encoding="utf-8") as stream:
        stream.write("6,more\n")
    with pytest.raises(SourceError, match="changed"):
        source.check_unchanged()
