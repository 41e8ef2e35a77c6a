"""Reads records of CSV, TSV and JSONL out of a byte stream, and encodes rows again.

Guarantee: every record, whatever is wrong with it, comes out once, in order, with the bytes it covers; what the
format can't read carries a flaw instead of values, and reading goes on at the next line. The same bytes from a
record's border on give the same records, so that a range can be read alone. Bytes that are no UTF-8 come out as they
went in.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

DELIMITERS = {"csv": ",", "tsv": "\t"}
FORMATS = ("csv", "tsv", "jsonl")
MAX_RECORD_CHARACTERS = 4_000_000
"""A longer cell is no comment but an unclosed quote."""
ENCODING_ERRORS = "surrogateescape"
"""Each byte that is no UTF-8 is kept as half of a surrogate pair, and written as that byte again."""
_UNCLOSED = "unclosed quote"


@dataclass(frozen=True)
class Record:
    """One record as it stands in the file."""

    start: int
    end: int
    """Bytes ``start`` to ``end`` of the stream, the line end and blank lines before it included."""
    values: Sequence[str] | Mapping[str, Any]
    """Cells (CSV, TSV) or keys and values (JSONL); empty with a flaw."""
    flaw: str | None = None
    """Why it can't be read."""
    is_isolated: bool = False
    """The flaw shows only with the bytes after the record; a range must not hold others beside it."""


def read_records(stream: BinaryIO, kind: str, *, start: int = 0) -> Iterator[Record]:
    """The records from a border on up to the end of the stream, which must be seekable. Blank lines are no records."""
    lines = _Lines(stream, start)
    return _read_lines(lines) if kind == "jsonl" else _read_cells(lines, DELIMITERS[kind])


def encode_row(values: Sequence[str] | Mapping[str, Any], kind: str, line_end: str) -> bytes:
    """One row in a format, with its line end. Cells for CSV and TSV, keys and values for JSONL."""
    if kind == "jsonl":
        try:
            text = json.dumps(values, ensure_ascii=False)
            return text.encode("utf-8", ENCODING_ERRORS) + b"\n"
        except UnicodeEncodeError:
            # Half of a surrogate pair that stood there as an escape.
            return json.dumps(values).encode() + b"\n"
    cells = io.StringIO(newline="")
    # With this line end the writer quotes every cell that holds \r or \n, whatever the file's own line end is.
    csv.writer(cells, delimiter=DELIMITERS[kind], lineterminator="\r\n").writerow(values)
    text = cells.getvalue().removesuffix("\r\n") + line_end
    try:
        return text.encode("utf-8", ENCODING_ERRORS)
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace")


def cell(value: Any) -> str:
    """A JSON value as a cell: text as it is, null as nothing, others as JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


class _Lines:
    """Decoded lines of a stream, with the place of the next one."""

    def __init__(self, stream: BinaryIO, offset: int) -> None:
        self._stream, self.offset = stream, offset
        self._size = stream.seek(0, io.SEEK_END)
        stream.seek(offset)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        """The next line."""
        line = self._stream.readline()
        if not line:
            raise StopIteration
        self.offset += len(line)
        return line.decode("utf-8", ENCODING_ERRORS)

    def is_at_end(self) -> bool:
        """Whether every line was taken."""
        return self.offset >= self._size

    def go_after_line(self, start: int) -> None:
        """Go on after the first line that isn't empty from ``start`` on."""
        self._stream.seek(start)
        self.offset = start
        while line := self._stream.readline():
            self.offset += len(line)
            if line not in (b"\n", b"\r\n"):
                return

    def taken_since(self, start: int) -> Iterator[str]:
        """The lines from ``start`` on that were taken."""
        self._stream.seek(start)
        data = self._stream.read(self.offset - start)
        return (line.decode("utf-8", ENCODING_ERRORS) for line in io.BytesIO(data))


def _read_cells(lines: _Lines, delimiter: str) -> Iterator[Record]:
    csv.field_size_limit(MAX_RECORD_CHARACTERS)
    reader = csv.reader(lines, delimiter=delimiter)
    start = lines.offset
    while True:
        try:
            cells = next(reader)
            flaw = _UNCLOSED if lines.is_at_end() and _is_unclosed(lines, start, delimiter) else None
        except StopIteration:
            return
        except csv.Error as error:
            cells, flaw = [], _UNCLOSED if "field limit" in str(error) else f"not readable ({error})"
        if flaw is not None:
            lines.go_after_line(start)
            reader = csv.reader(lines, delimiter=delimiter)
            yield Record(start, lines.offset, (), flaw, is_isolated=True)
        elif cells:
            yield Record(start, lines.offset, cells)
        else:
            continue  # a blank line goes with the record after it
        start = lines.offset


def _is_unclosed(lines: _Lines, start: int, delimiter: str) -> bool:
    """Whether the record that ended with the stream did so inside quotes; the reader itself doesn't say."""
    try:
        for _ in csv.reader(lines.taken_since(start), delimiter=delimiter, strict=True):
            pass
    except csv.Error as error:
        return "unexpected end of data" in str(error)
    return False


def _read_lines(lines: _Lines) -> Iterator[Record]:
    start = lines.offset
    for line in lines:
        if not line.strip():
            continue
        values, flaw = _parse(line)
        yield Record(start, lines.offset, values, flaw)
        start = lines.offset


def _parse(line: str) -> tuple[Mapping[str, Any], str | None]:
    if len(line) > MAX_RECORD_CHARACTERS:
        return {}, "longer than a record may be"
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        return {}, f"not JSON ({type(error).__name__})"
    return (data, None) if isinstance(data, dict) else ({}, "no JSON object")
