"""The input: record borders, ranges that can be read alone, rows that can't be read, and what is refused."""

from __future__ import annotations

import csv
import io
import json
import os
import random
from pathlib import Path

import pytest

from configs.schema.inference import RowInput
from jobs.pairs import Pair, PairSplits, write_pairs
from workers import records
from workers.messages import Task
from workers.records import encode_row, read_records
from workers.source import Plan, Row, SourceError, make_plan, open_source


def plan_of(file: Path, rows_per_task: int = 2, text_column: str = "comment") -> Plan:
    return make_plan(open_source(RowInput(path=str(file), text_column=text_column)), rows_per_task)


def rows_of(plan: Plan) -> list[Row]:
    return [row for task in plan.tasks() for row in plan.source.read(task)]


def write(folder: Path, name: str, data: bytes) -> Path:
    file = folder / name
    file.write_bytes(data)
    return file


def random_text(chance: random.Random) -> str:
    pieces = ['"', ",", "\n", "\r\n", "\t", "a", "é", "😀", " ", "''", '""', "x,y", ";", "\x00"]
    return "".join(chance.choice(pieces) for _ in range(chance.randrange(8)))


@pytest.mark.parametrize("seed", range(20))
def test_whatever_a_csv_writer_wrote_is_read_back_from_ranges_of_any_size(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    cells = [[str(number), random_text(chance), random_text(chance)] for number in range(50)]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=chance.choice(["\n", "\r\n"]), quoting=chance.choice([0, 1]))
    writer.writerow(["id", "comment", "other"])
    writer.writerows(cells)
    bom = chance.choice([b"", b"\xef\xbb\xbf"])
    file = write(tmp_path, "dump.csv", bom + text.getvalue().encode())
    plan = plan_of(file, rows_per_task=chance.randrange(1, 9))
    assert [list(row.values) for row in rows_of(plan)] == cells
    assert [row.text for row in rows_of(plan)] == [row[1] for row in cells]
    assert [row.number for row in rows_of(plan)] == list(range(50))


@pytest.mark.parametrize("kind", ["csv", "tsv"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_what_is_written_is_read_back(tmp_path: Path, kind: str, line_end: str) -> None:
    rows = [["1", "a\rb"], ["2", "a\nb"], ["3", ""], ["4", "\t,\"'"], ["5", " "]]
    data = b"".join(encode_row(row, kind, line_end) for row in [["id", "comment"], *rows])
    file = write(tmp_path, f"dump.{kind}", data)
    assert [list(row.values) for row in rows_of(plan_of(file))] == rows
    assert data.count(line_end.encode()) >= 6


def test_json_lines_keep_every_key_and_value(tmp_path: Path) -> None:
    values: list[dict[str, object]] = [
        {"id": 1, "comment": "a\nb 😀"},
        {"comment": "c", "nested": {"x": [1, None, True]}, "number": 1.5},
    ]
    lines = "\n".join(json.dumps(item) for item in values)
    plan = plan_of(write(tmp_path, "dump.jsonl", f"{lines}\n\n \n".encode()), rows_per_task=1)
    assert [row.values for row in rows_of(plan)] == values
    assert plan.source.columns == ("id", "comment", "nested", "number"), "of any row"
    assert plan.num_rows == 2, "blank lines are no rows"


def test_blank_lines_between_records_are_no_rows(tmp_path: Path) -> None:
    plan = plan_of(write(tmp_path, "dump.csv", b"id,comment\n\n1,a\n\r\n\n2,b\n\n"), rows_per_task=1)
    assert [row.text for row in rows_of(plan)] == ["a", "b"]


def test_a_last_line_without_an_end_is_a_row(tmp_path: Path) -> None:
    plan = plan_of(write(tmp_path, "dump.csv", b"id,comment\n1,a\n2,b"))
    assert [row.text for row in rows_of(plan)] == ["a", "b"]


def test_quotes_inside_a_cell_that_isnt_quoted_open_nothing(tmp_path: Path) -> None:
    plan = plan_of(write(tmp_path, "dump.csv", b'id,comment\n1,a 5" pipe\n2,say "hi"\n3,c\n'), rows_per_task=1)
    assert [row.text for row in rows_of(plan)] == ['a 5" pipe', 'say "hi"', "c"]


@pytest.mark.parametrize("rows_per_task", [1, 3, 100])
def test_an_unclosed_quote_costs_one_row(tmp_path: Path, rows_per_task: int) -> None:
    lines = b'id,comment\n1,a\n2,"never closed\n3,c\n4,d\n'
    rows = rows_of(plan_of(write(tmp_path, "dump.csv", lines), rows_per_task))
    assert [(row.text, row.flaw) for row in rows] == [("a", None), ("", "unclosed quote"), ("c", None), ("d", None)]


def test_a_lone_carriage_return_outside_quotes_costs_one_row(tmp_path: Path) -> None:
    rows = rows_of(plan_of(write(tmp_path, "dump.csv", b"id,comment\n1,a\n2,b\rb\n3,c\n"), 10))
    assert [row.text for row in rows] == ["a", "", "c"]
    assert str(rows[1].flaw).startswith("not readable (")


def test_a_cell_above_the_limit_is_an_unclosed_quote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_RECORD_CHARACTERS", 100)
    data = b'id,comment\n1,a\n2,"' + b"x\n" * 80 + b'3,c"\n4,d\n'
    rows = rows_of(plan_of(write(tmp_path, "dump.csv", data), 10))
    assert (rows[1].flaw, rows[1].number) == ("unclosed quote", 1)
    assert rows[-1].text == "d"
    assert [row.number for row in rows] == list(range(len(rows)))


def test_a_row_with_too_few_or_too_many_cells_keeps_its_place_and_says_so(tmp_path: Path) -> None:
    rows = rows_of(plan_of(write(tmp_path, "dump.csv", b"id,comment\n1\n2,b\n3,c,d\n")))
    assert [row.flaw for row in rows] == ["1 cells where the header has 2", None, "3 cells where the header has 2"]
    assert [list(row.values) for row in rows] == [["1", ""], ["2", "b"], ["3", "c"]]


def test_json_lines_that_hold_no_text_keep_their_place_and_say_so(tmp_path: Path) -> None:
    data = b'{"comment": "a"}\n{broken\n[1]\n{"id": 1}\n{"comment": 7}\n{"comment": null}\n'
    rows = rows_of(plan_of(write(tmp_path, "dump.jsonl", data)))
    assert [row.flaw for row in rows] == [
        None,
        "not JSON (JSONDecodeError)",
        "no JSON object",
        "no such key as the text column",
        "no text but int",
        "no text but NoneType",
    ]


def test_bytes_that_are_no_text_come_out_as_they_went_in(tmp_path: Path) -> None:
    plan = plan_of(write(tmp_path, "dump.csv", b"id,comment\n1,caf\xe9\n"))
    (row,) = rows_of(plan)
    assert encode_row(row.values, "csv", "\n") == b"1,caf\xe9\n"
    assert encode_row({"comment": "caf\udce9"}, "jsonl", "\n") == b'{"comment": "caf\xe9"}\n'


def test_half_of_a_surrogate_pair_is_written_as_an_escape() -> None:
    assert json.loads(encode_row({"comment": "\ud83d"}, "jsonl", "\n")) == {"comment": "\ud83d"}
    assert encode_row(["\ud83d"], "csv", "\n") == b"\\ud83d\n"


def test_a_task_is_cut_at_the_row_in_its_middle(tmp_path: Path) -> None:
    plan = plan_of(write(tmp_path, "dump.csv", b'id,comment\n1,a\n2,"b\nb"\n3,c\n4,d\n5,e\n'), rows_per_task=100)
    (task,) = plan.tasks()
    left, right = plan.source.halves(task)
    assert [row.text for row in plan.source.read(left)] == ["a", "b\nb"]
    assert [(row.number, row.text) for row in plan.source.read(right)] == [(2, "c"), (3, "d"), (4, "e")]


def test_a_range_ends_before_it_is_too_large_for_a_workers_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.source.MAX_TASK_BYTES", 30)
    plan = plan_of(write(tmp_path, "dump.csv", b"id,comment\n" + b"1,0123456789\n" * 5), rows_per_task=100)
    assert [task.num_rows for task in plan.tasks()] == [2, 2, 1]
    assert len(rows_of(plan)) == 5


def test_a_plan_is_the_same_after_it_was_stored(tmp_path: Path) -> None:
    plan = plan_of(write(tmp_path, "dump.csv", b'id,comment\n1,a\n2,"open\n'))
    assert Plan.from_dict(json.loads(json.dumps(plan.as_dict()))) == plan


@pytest.mark.parametrize("change", ["longer", "touched", "gone"])
def test_an_input_that_changed_is_not_read(tmp_path: Path, change: str) -> None:
    file = write(tmp_path, "dump.csv", b"id,comment\n1,a\n")
    plan = plan_of(file)
    if change == "longer":
        file.write_bytes(b"id,comment\n1,a\n2,b\n")
    elif change == "touched":
        os.utime(file, ns=(1, 1))
    else:
        file.unlink()
    with pytest.raises(SourceError, match=r"changed since it was planned|can't be read any more"):
        plan.source.read(next(plan.tasks()))


def test_a_range_that_doesnt_hold_its_rows_is_refused(tmp_path: Path) -> None:
    plan = plan_of(write(tmp_path, "dump.csv", b"id,comment\n1,a\n2,b\n"))
    task = next(plan.tasks())
    with pytest.raises(SourceError, match="1 rows, 2 were planned"):
        plan.source.read(Task(task.file, 0, 1, task.offset, task.length // 2))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("dump2.csv", None, r"no such file; did you mean .*dump\.csv"),
        ("dump.xml", b"<a/>", r"names no format; set input\.format to csv, tsv, jsonl"),
        ("empty.csv", b"", "the file is empty"),
        ("bom.csv", b"\xef\xbb\xbf", "the file is empty"),
        ("header.csv", b"id,comment\n", "no rows after the header"),
        ("other.csv", b"id,text\n1,a\n", r"'comment' is not among the columns .*: id, text"),
        ("other.jsonl", b'{"id": 1}\n{"text": "a"}\n', r"'comment' is not among the columns .*: id, text"),
        ("twice.csv", b"comment,comment\n1,a\n", "'comment' is twice among the columns"),
        ("again.csv", b"comment,detoxified\n1,a\n", "a column 'detoxified', which the output adds; rename it"),
        ("more.csv", b"comment,detoxified_2\n1,a\n", "a column 'detoxified_2', which the output adds; rename it"),
        ("status.jsonl", b'{"comment": "a"}\n{"distox_status": 1}\n', "a column 'distox_status'"),
        ("folder.csv", "folder", "is a folder"),
    ],
)
def test_a_wrong_input_is_refused_with_field_value_and_remedy(
    tmp_path: Path, name: str, data: bytes | str | None, message: str
) -> None:
    write(tmp_path, "dump.csv", b"id,comment\n1,a\n")
    if isinstance(data, bytes):
        write(tmp_path, name, data)
    elif data == "folder":
        (tmp_path / name).mkdir()
    with pytest.raises(SourceError, match=message) as caught:
        plan_of(tmp_path / name)
    assert "input." in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_prepared_folder_stands_for_the_comments_of_its_train_split(tmp_path: Path) -> None:
    splits = PairSplits(
        (Pair("one\ntwo", ("a", "b")), Pair("three", ("c",))), (Pair("v", ("d",)),), (Pair("t", ("e",)),)
    )
    write_pairs(splits, tmp_path / "dataset", about={})
    source = open_source(RowInput(path=str(tmp_path / "dataset"), text_column="source"))
    assert [row.text for row in rows_of(make_plan(source, 5))] == ["one\ntwo", "three"]
    with pytest.raises(SourceError, match=r"'text' is not among the columns .*: source, targets"):
        make_plan(open_source(RowInput(path=str(tmp_path / "dataset"))), 5)


def test_a_format_may_be_named_where_the_ending_says_nothing(tmp_path: Path) -> None:
    file = write(tmp_path, "dump.txt", b"id\tcomment\n1\ta\n")
    source = open_source(RowInput(path=str(file), format="tsv", text_column="comment"))
    assert [row.text for row in rows_of(make_plan(source, 5))] == ["a"]


def test_records_cover_every_byte_once(tmp_path: Path) -> None:
    data = b'\nid,comment\n1,"a\nb"\n\n2,"x\n3,\xff\n'
    found = list(read_records(io.BytesIO(data), "csv"))
    assert [found[0].start, *[record.end for record in found]] == [
        0,
        *[record.start for record in found[1:]],
        len(data),
    ]
