"""The output of a run: immutable part files for row ranges, each with a sidecar that says what it holds.

Guarantee: when ``write`` returns, part and sidecar are durable; a sidecar with the checksum of its part is the proof
that the range is whole, whatever Redis remembers. A part's name carries its fence, so no two deliveries share a file.
It knows nothing of the queue.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from jobs.rewritten import added_columns
from workers.durable import sync_folder, write_durably
from workers.messages import Task
from workers.records import cell, encode_row
from workers.source import Row, Source, SourceError

VERSION = 2
"""Of the sidecar."""
FOLDER = "parts"
QUARANTINED = "quarantined"
KEPT = "kept"


class Rewritten(Protocol):
    """The outcome of one row; ``jobs.detoxify.Rewrite`` is one."""

    @property
    def text(self) -> str | None:
        """The new text; None when quarantined."""

    @property
    def status(self) -> str:
        """What became of the row."""

    @property
    def reason(self) -> str | None:
        """Why it was flagged or quarantined; holds no text of the comment."""

    @property
    def others(self) -> tuple[str, ...]:
        """Further rewrites, the better first."""

    @property
    def dropped(self) -> tuple[str, ...]:
        """Why, for each candidate that is no rewrite of the row."""


@dataclass(frozen=True)
class Quarantined:
    """The outcome of a row that has none."""

    reason: str
    text: None = None
    status: str = QUARANTINED
    others: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """What a sidecar says of its part."""

    file: str
    first_row: int
    last_row: int
    offset: int
    length: int
    """Bytes of the input that hold the rows: the borders that are left when a task was bisected."""
    generation: int
    delivery: int
    counts: Mapping[str, int]
    """Rows by status."""
    reasons: Sequence[tuple[int, str, str]]
    """(row, status, reason) of every flagged and quarantined row."""
    candidates: Mapping[str, int]
    """Rewrites that the rows have, under ``KEPT``, and candidates that were dropped, under the reason."""
    num_bytes: int
    header_bytes: int
    """The header at the part's beginning, left out when parts are joined."""
    sha256: str

    @property
    def num_rows(self) -> int:
        """Rows in the part."""
        return self.last_row - self.first_row + 1

    @property
    def sidecar(self) -> str:
        """Name of the small file beside it."""
        return sidecar_name(self.file)


class Sink:
    """Writes the parts of one run into ``output/parts``."""

    def __init__(self, output: Path, source: Source, asked_format: str, *, num_rewrites: int = 1) -> None:
        """Prepare the folder.

        Args:
            output: folder of the run.
            source: whose columns are kept.
            asked_format: ``csv``, ``tsv``, ``jsonl``, or ``input`` for the source's.
            num_rewrites: columns for rewrites; a row may have fewer.

        Raises:
            SourceError: the columns can't be kept in that format.
        """
        self.kind = source.kind if asked_format == "input" else asked_format
        self.folder = output / FOLDER
        self.folder.mkdir(parents=True, exist_ok=True)
        self._source = source
        self._added = added_columns(num_rewrites)
        self._line_end = source.line_end if self.kind == source.kind else "\n"
        if self.kind == "jsonl" and len(set(source.columns)) < len(source.columns):
            twice = next(name for name in source.columns if source.columns.count(name) > 1)
            raise SourceError(f"rows.format = jsonl can't hold the column {twice!r} of {source.path} twice; rename one")

    def header(self) -> bytes:
        """The first line of a file in this format; nothing for JSONL."""
        if self.kind == "jsonl":
            return b""
        return encode_row([*self._source.columns, *self._added], self.kind, self._line_end)

    def write(
        self, task: Task, rows: Sequence[Row], outcomes: Sequence[Rewritten], *, generation: int, delivery: int
    ) -> Part:
        """Make the part of a task durable, then its sidecar, and say what it holds. Repeating it changes nothing.

        Raises:
            SinkError: the disk is full or fails; no half of a file is left.
        """
        header = self.header()
        lines = [self._line(row, outcome) for row, outcome in zip(rows, outcomes, strict=True)]
        data = b"".join([header, *lines])
        name = part_name(task.first_row, task.last_row, generation, delivery, self.kind)
        part = Part(
            file=name,
            first_row=task.first_row,
            last_row=task.last_row,
            offset=task.offset,
            length=task.length,
            generation=generation,
            delivery=delivery,
            counts=dict(Counter(str(outcome.status) for outcome in outcomes)),
            reasons=[
                (row.number, str(outcome.status), outcome.reason)
                for row, outcome in zip(rows, outcomes, strict=True)
                if outcome.reason is not None
            ],
            candidates=_count_candidates(outcomes),
            num_bytes=len(data),
            header_bytes=len(header),
            sha256=hashlib.sha256(data).hexdigest(),
        )
        write_durably(self.folder / name, data)
        sidecar = json.dumps({"version": VERSION, **asdict(part)}, separators=(",", ":")).encode()
        write_durably(self.folder / part.sidecar, sidecar)
        sync_folder(self.folder)
        return part

    def _line(self, row: Row, outcome: Rewritten) -> bytes:
        rewrites = (outcome.text, *outcome.others)
        assert len(rewrites) < len(self._added), "a handler gives at most as many rewrites as it was asked for"
        empty = (None,) * (len(self._added) - 1 - len(rewrites))
        added = (*rewrites, *empty, str(outcome.status))
        if self.kind == "jsonl":
            values = row.values
            kept = values if isinstance(values, Mapping) else dict(zip(self._source.columns, values, strict=True))
            return encode_row({**kept, **dict(zip(self._added, added, strict=True))}, self.kind, self._line_end)
        return encode_row(
            [*self._cells(row), *("" if item is None else item for item in added)], self.kind, self._line_end
        )

    def _cells(self, row: Row) -> Iterable[str]:
        if isinstance(row.values, Mapping):
            return (cell(row.values.get(name)) for name in self._source.columns)
        return row.values


def _count_candidates(outcomes: Sequence[Rewritten]) -> dict[str, int]:
    counts = Counter(reason for outcome in outcomes for reason in outcome.dropped)
    counts[KEPT] = sum((outcome.text is not None) + len(outcome.others) for outcome in outcomes)
    return dict(counts)


def part_name(first_row: int, last_row: int, generation: int, delivery: int, kind: str) -> str:
    """The name of a part; it sorts by rows."""
    return f"part-{first_row:010d}-{last_row:010d}-g{generation}-d{delivery}.{kind}"


def sidecar_name(part: str) -> str:
    """The name of a part's sidecar. A part in JSONL has another ending, so the two never clash."""
    return f"{part.rpartition('.')[0]}.json"


def read_part(folder: Path, sidecar: str) -> Part | None:
    """What a sidecar says, when it is whole and its part has the bytes that it says; else None."""
    try:
        data = json.loads((folder / sidecar).read_bytes())
        if data.pop("version") != VERSION:
            return None
        part = Part(**data)
        return part if _matches(folder / part.file, part) else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def read_parts(folder: Path) -> Iterator[Part]:
    """Every whole part in a folder, in no order."""
    for sidecar in folder.glob("part-*.json"):
        part = read_part(folder, sidecar.name)
        if part is not None:
            yield part


def _matches(file: Path, part: Part) -> bool:
    with file.open("rb") as stream:
        digest: Any = hashlib.file_digest(stream, "sha256")
    return file.stat().st_size == part.num_bytes and digest.hexdigest() == part.sha256
