"""Between rows of the store and objects: what a new run's row holds, how one is read, and which text can be kept."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any

from sqlalchemy import Row

from cluster.runs import Run, State, new_run_id
from configs.load import dump_spec
from configs.schema.kinds import AnySpec

MAX_REASON = 2000
"""Characters of a reason; a longer one is cut."""

_FIELDS = [field.name for field in fields(Run)]


def new_row(spec: AnySpec, *, owner: str, now: datetime, offset: int = 0) -> dict[str, Any]:
    """The row of a PENDING run; ``offset`` in microseconds orders runs that are made together."""
    return {
        "id": new_run_id(now, offset=offset),
        "name": clean(spec.name),
        "folded_name": fold(spec.name),
        "kind": spec.kind,
        "owner": owner,
        "state": str(State.PENDING),
        "spec": dump_spec(spec),
        "epoch": 0,
        "generation": 0,
        "created_at": now,
        "state_at": now,
        "cancel_requested": False,
        "progress": {},
        "errors": 0,
        "lost": 0,
    }


def read_run(row: Row[Any]) -> Run:
    """The run that a row of ``runs`` holds."""
    values = {name: getattr(row, name) for name in _FIELDS}
    return Run(**{**values, "state": State(row.state)})


def clean(text: str | None) -> str | None:
    """Text without the NUL character, which PostgreSQL can't keep."""
    return text if text is None else text.replace("\x00", "\N{REPLACEMENT CHARACTER}")


def fold(text: str | None) -> str | None:
    """Text as it is compared when case doesn't matter."""
    cleaned = clean(text)
    return cleaned if cleaned is None else cleaned.casefold()


def one_line(reason: str | None) -> str | None:
    """A reason as one line of bounded length."""
    if reason is None:
        return None
    line = " ".join(reason.replace("\x00", "\N{REPLACEMENT CHARACTER}").split())
    return line if len(line) <= MAX_REASON else line[: MAX_REASON - 1] + "…"


def finite(progress: Mapping[str, Any]) -> dict[str, Any]:
    """Progress with None for the numbers that JSON has no word for."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in progress.items()
    }
