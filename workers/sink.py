"""Writes the output: immutable parts with sidecars, a manifest that names them in order, and one merged file.

Guarantee: a part and then its sidecar are on the disk before its task is committed; a part's name holds its fence, so
that two holders of one task never write the same file; every row is in exactly one part that the manifest names.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs.detoxify import Rewrite
from workers.messages import Task
from workers.source import DELIMITERS, Source, SourceError

TEXT_COLUMN, STATUS_COLUMN = "detoxified", "distox_status"


@dataclass(frozen=True)
class Part:
    """What a sidecar says of a part."""

    file: str
    first_row: int
    last_row: int
    generation: int
    delivery: int
    counts: dict[str, int]
    sha256: str


class Sink:
    """The output folder of one run."""

    def __init__(self, folder: Path, source: Source, output_format: str) -> None:
        taken = {TEXT_COLUMN, STATUS_COLUMN} & set(source.columns)
        if taken:
            raise SourceError(f"input.path = {source.path} has the column {', '.join(taken)} already; rename it")
        self.folder = folder
        self._source = source
        self.format = source.format if output_format == "input" else output_format
        self._columns = (*source.columns, TEXT_COLUMN, STATUS_COLUMN)
        folder.mkdir(parents=True, exist_ok=True)

    def write_part(
        self, task: Task, rows: Sequence[dict[str, Any]], rewrites: Sequence[Rewrite], *, generation: int, delivery: int
    ) -> Part:
        """Write a part and its sidecar, durably.

        Raises:
            OSError: the disk is full or the folder can't be written.
        """
        done = [
            {**row, TEXT_COLUMN: rewrite.text, STATUS_COLUMN: str(rewrite.status)}
            for row, rewrite in zip(rows, rewrites, strict=True)
        ]
        data = self._encode(done).encode("utf-8")
        stem = f"part-{task.first_row:09d}-{task.last_row:09d}-g{generation}-d{delivery}"
        counts = Counter(str(rewrite.status) for rewrite in rewrites)
        part = Part(
            f"{stem}.{self.format}", task.first_row, task.last_row, generation, delivery, dict(counts), _sha256(data)
        )
        _write_durably(self.folder / part.file, data)
        _write_durably(self.folder / f"{stem}.json", json.dumps(asdict(part)).encode())
        return part

    def parts(self) -> list[Part]:
        """The valid part of each row range with the highest fence, in row order."""
        best: dict[tuple[int, int], Part] = {}
        for sidecar in self.folder.glob("part-*.json"):
            part = self._read_sidecar(sidecar)
            if part is None:
                continue
            key = part.first_row, part.last_row
            if key not in best or (best[key].generation, best[key].delivery) < (part.generation, part.delivery):
                best[key] = part
        return [best[key] for key in sorted(best)]

    def finish(self, parts: Iterable[Part], *, epoch: int) -> Path:
        """Write the manifest, then delete the parts that it doesn't name."""
        named = list(parts)
        file = self.folder / f"_manifest-a{epoch}.json"
        _write_durably(file, json.dumps({"version": 1, "parts": [asdict(part) for part in named]}, indent=1).encode())
        keep = {Path(part.file).stem for part in named}
        for path in self.folder.glob("part-*"):
            if path.stem not in keep:
                path.unlink()
        return file

    def merge(self, parts: Iterable[Part], *, epoch: int) -> Path:
        """One file of all parts in order; it appears whole or not at all."""
        target = self.folder / f"{self._source.path.stem}.detoxified.{self.format}"
        temporary = self.folder / f".{target.name}-a{epoch}"
        with temporary.open("wb") as stream:
            if self.format in DELIMITERS:
                stream.write(self._header().encode("utf-8"))
            for part in parts:
                stream.write((self.folder / part.file).read_bytes())
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)
        return target

    def _read_sidecar(self, sidecar: Path) -> Part | None:
        """What it says, when it is whole and its part is too."""
        try:
            part = Part(**json.loads(sidecar.read_text("utf-8")))
            return part if _sha256((self.folder / part.file).read_bytes()) == part.sha256 else None
        except (OSError, ValueError, TypeError):
            return None

    def _header(self) -> str:
        stream = io.StringIO(newline="")
        csv.writer(stream, delimiter=DELIMITERS[self.format]).writerow(self._columns)
        return stream.getvalue()

    def _encode(self, rows: Sequence[dict[str, Any]]) -> str:
        if self.format == "jsonl":
            return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        stream = io.StringIO(newline="")
        writer = csv.DictWriter(
            stream, self._columns, delimiter=DELIMITERS[self.format], extrasaction="ignore", restval=""
        )
        writer.writerows(rows)
        return stream.getvalue()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write_durably(file: Path, data: bytes) -> None:
    with file.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    descriptor = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
