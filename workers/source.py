"""Reads a dump of comments: one pass finds the record borders, then workers read only their byte range.

Guarantee: a quoted line break ends no record, and rows keep their order and number. Memory is one block of rows.
CSV, TSV and JSONL, UTF-8, with a header (CSV, TSV) that may begin with a byte order mark.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from configs.schema.inference import RowInput
from workers.messages import Task

DELIMITERS = {"csv": ",", "tsv": "\t"}
FORMATS = ("csv", "tsv", "jsonl")
_BOM = b"\xef\xbb\xbf"
_QUOTE = b'"'


class SourceError(ValueError):
    """An input that can't be used; the message says why and what to do."""


@dataclass(frozen=True)
class Source:
    """An input file, looked at once."""

    path: Path
    format: str
    columns: tuple[str, ...]
    text_column: str
    data_offset: int
    """Byte at which the first record begins."""
    size: int
    modified_ns: int

    def check_unchanged(self) -> None:
        """Raise SourceError when the file is not the one that was planned."""
        state = self.path.stat()
        if (state.st_size, state.st_mtime_ns) != (self.size, self.modified_ns):
            raise SourceError(f"input.path = {self.path} changed while it was read; submit it again")

    def plan(self, rows_per_task: int) -> Iterator[Task]:
        """Cut the file into tasks."""
        first = row = 0
        start = end = self.data_offset
        for length in self._record_lengths():
            end += length
            row += 1
            if row - first == rows_per_task:
                yield Task(first, row - 1, start, end - start)
                first, start = row, end
        if row > first:
            yield Task(first, row - 1, start, end - start)

    def read(self, task: Task) -> list[dict[str, str]]:
        """The rows of a task, as text by column.

        Raises:
            SourceError: the range doesn't hold the rows that were planned.
        """
        with self.path.open("rb") as stream:
            stream.seek(task.offset)
            text = stream.read(task.length).decode("utf-8", errors="replace")
        if self.format == "jsonl":
            rows = [_json_row(line) for line in text.split("\n") if line.strip()]
        else:
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=DELIMITERS[self.format])
            rows = [
                dict(zip(self.columns, [*record, *[""] * len(self.columns)], strict=False))
                for record in reader
                if record
            ]
        if len(rows) != task.num_rows:
            raise SourceError(
                f"rows {task.id} of {self.path}: {len(rows)} found, {task.num_rows} planned; check its quoting"
            )
        return rows

    def _record_lengths(self) -> Iterator[int]:
        """Bytes of each record with its line end; blank lines go with the record after them."""
        length, quoted = 0, False
        with self.path.open("rb") as stream:
            stream.seek(self.data_offset)
            for line in stream:
                length += len(line)
                if self.format != "jsonl" and line.count(_QUOTE) % 2:
                    quoted = not quoted
                if not quoted and line.strip():
                    yield length
                    length = 0
        if quoted and length:
            yield length


def open_source(row_input: RowInput) -> Source:
    """Look at the input.

    Raises:
        SourceError: no such file, empty, of an unknown format, or without the text column.
    """
    path = Path(row_input.path)
    if not path.is_file():
        close = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*")], n=1)
        raise SourceError(
            f"input.path = {path}: no such file; {f'did you mean {close[0]}?' if close else 'check the path'}"
        )
    kind = path.suffix.lstrip(".").lower() if row_input.format == "auto" else row_input.format
    if kind not in FORMATS:
        raise SourceError(f"input.path = {path}: unknown ending; set input.format to one of {', '.join(FORMATS)}")
    state = path.stat()
    if state.st_size == 0:
        raise SourceError(f"input.path = {path}: the file is empty; give one with rows")
    with path.open("rb") as stream:
        offset = len(_BOM) if stream.read(len(_BOM)) == _BOM else 0
        stream.seek(offset)
        header = stream.readline()
    if kind == "jsonl":
        columns = tuple(_json_row(header.decode("utf-8", errors="replace")))
    else:
        columns = tuple(next(csv.reader([header.decode("utf-8", errors="replace")], delimiter=DELIMITERS[kind])))
        offset += len(header)
    if row_input.text_column not in columns:
        raise SourceError(
            f"input.text_column = {row_input.text_column!r}: {path} has {', '.join(columns)}; name one of them"
        )
    return Source(path, kind, columns, row_input.text_column, offset, state.st_size, state.st_mtime_ns)


def _json_row(line: str) -> dict[str, str]:
    try:
        data = json.loads(line)
    except json.JSONDecodeError as error:
        raise SourceError(f"a line is not JSON ({error.msg}); write one object a line") from error
    if not isinstance(data, dict):
        raise SourceError("a line is no JSON object; write one object a line")
    return data
