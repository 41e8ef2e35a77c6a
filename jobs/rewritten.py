"""The columns that ``detoxify`` adds to the rows of its input, and how a file of such rows is recognised again.

A run's manifest says which column was rewritten and where the rows are, so that whoever is given ``rows`` needs not be
told. Light: it is imported by processes that load no model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REWRITE, STATUS = "detoxified", "distox_status"
USABLE = ("rewritten", "unchanged")
"""Statuses of rows whose rewrites somebody may learn from: neither looked upon with doubt nor without text."""
_ADDED = re.compile(rf"{REWRITE}(_[0-9]+)?|{STATUS}")
_MANIFESTS = "_manifest-a*.json"


def rewrite_columns(num_rewrites: int) -> tuple[str, ...]:
    """``detoxified``, ``detoxified_2``, … for so many rewrites of a comment."""
    return (REWRITE, *(f"{REWRITE}_{number}" for number in range(2, num_rewrites + 1)))


def added_columns(num_rewrites: int) -> tuple[str, ...]:
    """What the output has beside the columns of the input, in this order."""
    return (*rewrite_columns(num_rewrites), STATUS)


def is_added(name: str) -> bool:
    """Whether ``detoxify`` may add a column of this name, with however many rewrites; an input must have none."""
    return _ADDED.fullmatch(name) is not None


def find_rewrites(columns: Sequence[str]) -> tuple[str, ...]:
    """Those of a file's columns that hold rewrites, the best first."""
    return tuple(name for name in columns if is_added(name) and name != STATUS)


@dataclass(frozen=True)
class RewrittenRows:
    """The rows of a finished run."""

    files: tuple[Path, ...]
    """Their files, in the order of the rows: the merged one, or the parts."""
    text_column: str
    """The column that was rewritten."""


def describe_rows(text_column: str, merged: str | None) -> dict[str, Any]:
    """What a manifest says for ``find_rows``."""
    return {"text_column": text_column, "merged": merged}


def find_rows(path: Path) -> RewrittenRows | None:
    """What a run's ``rows`` are: its merged file, or the manifest where nothing was merged.

    None for any other path, and for a merged file that was taken away from its manifest.
    """
    if path.suffix == ".json":
        about = _read_manifest(path)
        parts = () if about is None else tuple(path.parent / part["file"] for part in about["parts"])
        return RewrittenRows(parts, about["text_column"]) if about else None
    for manifest in sorted(path.parent.glob(_MANIFESTS)):
        about = _read_manifest(manifest)
        if about is not None and about["merged"] == path.name:
            return RewrittenRows((path,), about["text_column"])
    return None


def _read_manifest(path: Path) -> Mapping[str, Any] | None:
    try:
        about = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    is_whole = isinstance(about, dict) and {"parts", "text_column", "merged"} <= set(about)
    return about if is_whole else None
