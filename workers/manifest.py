"""From parts to the end result: which parts count, the manifest that names them, and one merged file.

Guarantee: the parts that count cover every row exactly once; a manifest and a merged file appear whole or not at all;
files of a later attempt are never deleted. It knows nothing of the queue.
"""

from __future__ import annotations

import bisect
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from jobs.rewritten import describe_rows
from workers.durable import replace_durably
from workers.messages import Task
from workers.sink import FOLDER, Part
from workers.source import Plan

PLAN = "_plan.json"
VERSION = 1
CHUNK_BYTES = 1_000_000
_PART = re.compile(r"part-\d+-\d+-g(\d+)-d\d+\.\w+")
_MANIFEST = re.compile(r"_manifest-a(\d+)\.json")


class CoverageError(RuntimeError):
    """The parts don't cover the plan; nothing was finished."""


def load_plan(output: Path) -> Plan | None:
    """The plan of an earlier attempt of this run."""
    try:
        data = json.loads((output / PLAN).read_bytes())
    except FileNotFoundError:
        return None
    return Plan.from_dict(data["plan"]) if data.get("version") == VERSION else None


def save_plan(output: Path, plan: Plan) -> None:
    """Keep a plan for later attempts.

    Raises:
        SinkError: the disk is full or fails.
    """
    text = json.dumps({"version": VERSION, "plan": plan.as_dict()}, separators=(",", ":"))
    replace_durably(output / PLAN, [text.encode()], temporary=f".{PLAN}.tmp")


def choose(plan: Plan, parts: Iterable[Part]) -> list[Part]:
    """The parts that count when the queue is rebuilt, in row order.

    Of parts that share rows (deliveries of a range, a whole and its halves) the one with the highest
    (generation, delivery) counts; a whole part is a right answer for its rows, whoever wrote it.
    """
    starts = [first for first, *_ in plan.ranges]
    chosen: list[Part] = []
    firsts: list[int] = []
    for part in sorted(parts, key=lambda part: (part.generation, part.delivery, part.num_rows), reverse=True):
        place = bisect.bisect(firsts, part.first_row)
        is_free = (place == 0 or chosen[place - 1].last_row < part.first_row) and (
            place == len(chosen) or part.last_row < chosen[place].first_row
        )
        index = bisect.bisect(starts, part.first_row) - 1
        if is_free and index >= 0 and part.last_row <= plan.ranges[index][1]:
            chosen.insert(place, part)
            firsts.insert(place, part.first_row)
    return chosen


def remaining(plan: Plan, covered: Sequence[Part]) -> list[Task]:
    """The plan minus the rows of what ``choose`` gave: whole tasks, or what halves have left of them."""
    tasks: list[Task] = []
    index = 0
    for task in plan.tasks():
        row, offset, end = task.first_row, task.offset, task.offset + task.length
        while index < len(covered) and covered[index].first_row <= task.last_row:
            part = covered[index]
            if part.first_row > row:
                tasks.append(Task(task.file, row, part.first_row - 1, offset, part.offset - offset))
            row, offset = part.last_row + 1, part.offset + part.length
            index += 1
        if row == task.first_row:
            tasks.append(task)
        elif row <= task.last_row:
            tasks.append(Task(task.file, row, task.last_row, offset, end - offset))
    return tasks


def count_rows(parts: Iterable[Part]) -> Counter[str]:
    """Rows by status."""
    counts: Counter[str] = Counter()
    for part in parts:
        counts.update(part.counts)
    return counts


def count_candidates(parts: Iterable[Part]) -> Counter[str]:
    """Rewrites that were kept, and candidates that were dropped by reason."""
    counts: Counter[str] = Counter()
    for part in parts:
        counts.update(part.candidates)
    return counts


def check_coverage(plan: Plan, parts: Sequence[Part]) -> None:
    """See that the parts, in this order, are the rows of the plan, each once.

    Raises:
        CoverageError: they aren't.
    """
    row = 0
    for part in parts:
        if part.first_row != row:
            raise CoverageError(f"row {row} is in {'no' if part.first_row > row else 'more than one'} committed part")
        row = part.last_row + 1
    if row != plan.num_rows:
        raise CoverageError(f"the committed parts end at row {row}, the plan at {plan.num_rows}")


def write_manifest(output: Path, plan: Plan, parts: Sequence[Part], *, epoch: int, merged: str | None = None) -> Path:
    """Name the parts in row order, and the merged file that there is or will be.

    Raises:
        SinkError: the disk is full or fails.
    """
    named = [
        {
            "file": f"{FOLDER}/{part.file}",
            "first_row": part.first_row,
            "last_row": part.last_row,
            "counts": part.counts,
            "sha256": part.sha256,
        }
        for part in parts
    ]
    content = {
        "version": VERSION,
        "epoch": epoch,
        "input": plan.source.path,
        **describe_rows(plan.source.text_column, merged),
        "num_rows": plan.num_rows,
        "counts": count_rows(parts),
        "candidates": count_candidates(parts),
        "parts": named,
    }
    file = output / f"_manifest-a{epoch}.json"
    replace_durably(file, [json.dumps(content, indent=1).encode()], temporary=f".{file.name}.tmp")
    return file


def merge(output: Path, name: str, header: bytes, parts: Sequence[Part], *, epoch: int) -> Path:
    """Join the parts, in this order, into one file.

    Raises:
        SinkError: the disk is full or fails.
    """
    file = output / name
    replace_durably(file, _joined(output / FOLDER, header, parts), temporary=f".{name}-a{epoch}.tmp")
    return file


def delete_others(output: Path, parts: Sequence[Part], *, generation: int, epoch: int) -> None:
    """Delete the parts that aren't among ``parts``, and manifests that an earlier attempt left.

    What a later generation wrote stays: another attempt has taken over and counts on it.
    """
    named = {name for part in parts for name in (part.file, part.sidecar)}
    for file in (output / FOLDER).iterdir():
        found = _PART.fullmatch(file.name)
        if found and int(found.group(1)) <= generation and file.name not in named:
            file.unlink(missing_ok=True)
    for file in output.iterdir():
        found = _MANIFEST.fullmatch(file.name)
        if found and int(found.group(1)) < epoch:
            file.unlink(missing_ok=True)


def _joined(folder: Path, header: bytes, parts: Sequence[Part]) -> Iterator[bytes]:
    yield header
    for part in parts:
        with (folder / part.file).open("rb") as stream:
            stream.seek(part.header_bytes)
            while chunk := stream.read(CHUNK_BYTES):
                yield chunk
