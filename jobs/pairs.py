"""Pairs of a comment and its rewrites, in three splits, and the prepared folder that holds them on disk.

Guarantee: what ``read_pairs`` gives is what ``write_pairs`` was given, or a ``DataError``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jobs.tables import DataError, is_file, one_line

PREPARED_FILE = "dataset.json"
"""Marks a folder that ``write_pairs`` wrote."""
FORMAT_VERSION = 1
SPLITS = ("train", "validation", "test")
TRAIN_FILE = "train.jsonl"


@dataclass(frozen=True)
class Pair:
    """A source text and its rewrites, at least one."""

    source: str
    targets: tuple[str, ...]


@dataclass(frozen=True)
class PairSplits:
    """The three parts of a dataset."""

    train: tuple[Pair, ...]
    validation: tuple[Pair, ...]
    test: tuple[Pair, ...]
    extra: Mapping[str, int] = field(default_factory=dict, compare=False, kw_only=True)
    """What became of the rows of ``dataset.extra`` (``jobs.extra.join_extra``); empty where there were none."""
    left_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict, compare=False, kw_only=True)
    """Split → its sources that ``dataset.limit`` leaves out: those of test may still be tested on by others."""


def is_prepared(path: Path) -> bool:
    """Whether ``write_pairs`` wrote this folder."""
    return is_file(path / PREPARED_FILE)


def write_pairs(splits: PairSplits, folder: Path, *, about: Mapping[str, Any]) -> None:
    """Write a prepared folder: three JSONL files and ``dataset.json``, which is written last."""
    folder.mkdir(parents=True, exist_ok=True)
    counts = {}
    for name in SPLITS:
        pairs: Sequence[Pair] = getattr(splits, name)
        counts[name] = len(pairs)
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8", newline="\n") as stream:
            stream.writelines(json.dumps(asdict(pair), ensure_ascii=False) + "\n" for pair in pairs)
    text = json.dumps({"version": FORMAT_VERSION, "counts": counts, **about}, indent=2, ensure_ascii=False)
    (folder / PREPARED_FILE).write_text(text + "\n", "utf-8")


def read_pairs(folder: Path) -> PairSplits:
    """Read a prepared folder as it was written.

    Raises:
        DataError: it is of another version or a file of it is broken.
    """
    try:
        about = json.loads((folder / PREPARED_FILE).read_text("utf-8"))
        if about["version"] != FORMAT_VERSION:
            raise DataError(
                f"{folder}: prepared in format {about['version']}, this is format {FORMAT_VERSION}; prepare it again"
            )
        splits = PairSplits(*(tuple(_read_split(folder / f"{name}.jsonl")) for name in SPLITS))
        counts = {name: len(getattr(splits, name)) for name in SPLITS}
        whole = about["counts"] == counts
    except (OSError, KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{folder}: a broken prepared dataset ({one_line(error)}); prepare it again") from error
    if not whole:
        raise DataError(f"{folder}: a broken prepared dataset (pairs are missing); prepare it again")
    return splits


def _read_split(file: Path) -> Iterator[Pair]:
    with file.open(encoding="utf-8") as stream:
        for line in stream:
            data = json.loads(line)
            if not isinstance(data["targets"], list):
                raise TypeError("targets is no list")
            yield Pair(data["source"], tuple(data["targets"]))
