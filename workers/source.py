"""The input of a run: one pass finds the record borders, then workers read only their byte range.

Guarantee: every record is a row, with a number that never changes; a row that can't be read carries the reason. An
input that is not the one that was planned is noticed before rows of it are used. Memory is the ranges of the plan,
not the rows. It knows nothing of the queue and of what is done with the text.
"""

from __future__ import annotations

import difflib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from configs.schema.inference import RowInput
from jobs.pairs import TRAIN_FILE, is_prepared
from jobs.rewritten import is_added
from workers.messages import Task
from workers.records import FORMATS, Record, read_records

MAX_TASK_BYTES = 8_000_000
"""A range ends before it would be larger, so that a worker's memory doesn't depend on the length of comments."""
_BOM = b"\xef\xbb\xbf"


class SourceError(ValueError):
    """An input that can't be used; the message names the field, and says why and what to do."""


@dataclass(frozen=True)
class Row:
    """One row of the input."""

    number: int
    """From 0, the first after the header."""
    values: Sequence[str] | Mapping[str, Any]
    """Cells in the order of the columns (CSV, TSV), or keys and values (JSONL)."""
    text: str
    """The comment; empty with a flaw."""
    flaw: str | None = None
    """Why there is no text; names no text."""


@dataclass(frozen=True)
class Source:
    """An input file, as it was when it was planned."""

    path: str
    kind: str
    """``csv``, ``tsv`` or ``jsonl``."""
    text_column: str
    columns: tuple[str, ...]
    """All of them; for JSONL every key of any row, in the order of their first appearance."""
    data_offset: int
    """Byte at which the first record begins, after a byte order mark and the header."""
    line_end: str
    """Of the header, for output in the same format."""
    size: int
    modified_ns: int

    def check_unchanged(self) -> None:
        """See whether the file is the one that was planned.

        Raises:
            SourceError: it has another size or time, or isn't there any more.
        """
        try:
            state = Path(self.path).stat()
        except OSError as error:
            raise SourceError(f"input.path = {self.path} can't be read any more ({error.strerror})") from error
        if (state.st_size, state.st_mtime_ns) != (self.size, self.modified_ns):
            raise SourceError(f"input.path = {self.path} changed since it was planned; submit it as a new run")

    def read(self, task: Task) -> list[Row]:
        """The rows of a task.

        Raises:
            SourceError: the file changed, or the range doesn't hold the rows that were planned.
        """
        self.check_unchanged()
        if task.flaw is not None:
            return [self._flawed(task.first_row, task.flaw)]
        rows = [self._row(task.first_row + index, record) for index, record in enumerate(self._records(task))]
        if len(rows) != task.num_rows:
            raise SourceError(
                f"input.path = {self.path}: bytes from {task.offset} on hold {len(rows)} rows, {task.num_rows} were "
                "planned; it changed while it was read, submit it as a new run"
            )
        return rows

    def halves(self, task: Task) -> tuple[Task, Task]:
        """A task of several rows, cut at the row in its middle.

        Raises:
            SourceError: as ``read``.
        """
        assert task.num_rows > 1, "a single row has no halves"
        self.check_unchanged()
        middle = task.num_rows // 2
        border = [record.end for record in self._records(task)][middle - 1]
        last = task.first_row + middle - 1
        left = Task(task.file, task.first_row, last, task.offset, border)
        return left, Task(task.file, last + 1, task.last_row, task.offset + border, task.length - border)

    def _records(self, task: Task) -> Iterator[Record]:
        """The records of a range; places count from its first byte."""
        try:
            with Path(self.path).open("rb") as stream:
                stream.seek(task.offset)
                data = stream.read(task.length)
        except OSError as error:
            raise SourceError(f"input.path = {self.path} can't be read any more ({error.strerror})") from error
        return read_records(io.BytesIO(data), self.kind)

    def _flawed(self, number: int, flaw: str) -> Row:
        return Row(number, {} if self.kind == "jsonl" else [""] * len(self.columns), "", flaw)

    def _row(self, number: int, record: Record) -> Row:
        if record.flaw is not None:
            return self._flawed(number, record.flaw)
        if isinstance(record.values, Mapping):
            return self._object_row(number, record.values)
        width = len(self.columns)
        if len(record.values) == width:
            return Row(number, record.values, record.values[self.columns.index(self.text_column)])
        cells = [*record.values, *[""] * width][:width]
        return Row(number, cells, "", f"{len(record.values)} cells where the header has {width}")

    def _object_row(self, number: int, values: Mapping[str, Any]) -> Row:
        text = values.get(self.text_column)
        if self.text_column not in values:
            return Row(number, values, "", "no such key as the text column")
        if not isinstance(text, str):
            return Row(number, values, "", f"no text but {type(text).__name__}")
        return Row(number, values, text)


@dataclass(frozen=True)
class Plan:
    """The row ranges of a run; stored with it, so that every attempt works on the same ones."""

    source: Source
    num_rows: int
    ranges: tuple[tuple[int, int, int, int, str | None], ...]
    """First row, last row, offset, length, flaw of each task, in order."""

    def tasks(self) -> Iterator[Task]:
        """The tasks, in the order of their rows."""
        return (Task(self.source.path, *values) for values in self.ranges)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {"source": asdict(self.source), "num_rows": self.num_rows, "ranges": self.ranges}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Plan:
        """The reverse of ``as_dict``."""
        source = Source(**{**data["source"], "columns": tuple(data["source"]["columns"])})
        return cls(source, data["num_rows"], tuple((a, b, c, d, e) for a, b, c, d, e in data["ranges"]))


def open_source(row_input: RowInput) -> Source:
    """Look at the file and its header; reads no rows of CSV and TSV, and the first row of JSONL.

    Of a folder that ``prepare`` wrote the file is that of its train split.

    Raises:
        SourceError: no such file, empty, of an unknown format, without the text column, or with a column that the
            output adds.
    """
    path = Path(row_input.path)
    path = path / TRAIN_FILE if is_prepared(path) else path
    kind = _kind_of(path, row_input.format)
    try:
        state = path.stat()
        with path.open("rb") as stream:
            begin = len(_BOM) if stream.read(len(_BOM)) == _BOM else 0
            header = next(read_records(stream, kind, start=begin), None)
            if header is None:
                raise SourceError(f"input.path = {path}: the file is empty; give one with rows")
            stream.seek(header.end - 2)
            line_end = "\r\n" if stream.read(2) == b"\r\n" and kind != "jsonl" else "\n"
    except OSError as error:
        raise SourceError(f"input.path = {path} can't be read ({error.strerror}); check its permissions") from error
    if kind == "jsonl":
        columns, offset = tuple(header.values), begin
    else:
        columns, offset = tuple(str(name) for name in header.values), header.end
        if header.flaw is not None:
            raise SourceError(f"input.path = {path}: the header has an error ({header.flaw}); mend the first line")
    source = Source(str(path), kind, row_input.text_column, columns, offset, line_end, state.st_size, state.st_mtime_ns)
    if kind != "jsonl":
        _check_columns(source)
    return source


def make_plan(source: Source, rows_per_task: int) -> Plan:
    """Cut the file into tasks, in one pass. For JSONL the plan's source knows every key that any row has.

    Raises:
        SourceError: there is no row, or a JSONL file has no row with the text column.
    """
    ranges: list[tuple[int, int, int, int, str | None]] = []
    names: dict[str, None] = {}
    row = first = 0
    begin = end = source.data_offset
    with Path(source.path).open("rb") as stream:
        for record in read_records(stream, source.kind, start=source.data_offset):
            if isinstance(record.values, Mapping):
                names.update(dict.fromkeys(record.values))
            is_full = row - first == rows_per_task or record.end - begin > MAX_TASK_BYTES or record.is_isolated
            if is_full and row > first:
                ranges.append((first, row - 1, begin, end - begin, None))
                first, begin = row, end
            end, row = record.end, row + 1
            if record.is_isolated:
                ranges.append((first, first, begin, end - begin, record.flaw))
                first, begin = row, end
    if row > first:
        ranges.append((first, row - 1, begin, end - begin, None))
    if row == 0:
        raise SourceError(f"input.path = {source.path}: there are no rows after the header; give a file with rows")
    if source.kind == "jsonl":
        source = Source(**{**asdict(source), "columns": tuple(names)})
        _check_columns(source)
    source.check_unchanged()
    return Plan(source, row, tuple(ranges))


def _kind_of(path: Path, asked: str) -> str:
    if not path.exists():
        near = difflib.get_close_matches(path.name, [item.name for item in path.parent.glob("*")], n=1)
        hint = f"did you mean {path.parent / near[0]}?" if near else "check the path"
        raise SourceError(f"input.path = {path}: no such file; {hint}")
    if path.is_dir():
        raise SourceError(f"input.path = {path} is a folder; give a file")
    kind = path.suffix.lstrip(".").lower() if asked == "auto" else asked
    if kind not in FORMATS:
        raise SourceError(
            f"input.path = {path}: the ending {path.suffix!r} names no format; set input.format to {', '.join(FORMATS)}"
        )
    return kind


def _check_columns(source: Source) -> None:
    where, names = f"input.path = {source.path}", ", ".join(source.columns)
    if source.columns.count(source.text_column) != 1:
        how = "twice" if source.text_column in source.columns else "not"
        raise SourceError(
            f"input.text_column = {source.text_column!r} is {how} among the columns of {source.path}: {names}"
        )
    for name in source.columns:
        if is_added(name):
            raise SourceError(f"{where} has a column {name!r}, which the output adds; rename it (columns: {names})")
