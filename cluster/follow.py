"""Follows a run by reading the store, and says what changes: a line for each state, and progress now and then.

It only reads, so any number may follow, from anywhere that reaches the store; it knows neither Ray nor a terminal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from cluster.runs import Run, State
from cluster.store import Store, StoreError

POLL_SECONDS = 0.5
PROGRESS_SECONDS = 5.0
"""Between two progress lines of one run."""
UNCLAIMED_SECONDS = 20.0
"""A coordinator takes up a PENDING run within a second; after this long there is none."""
OUTAGE_SECONDS = 60.0
"""How long a store that is away is waited for."""
MAX_FIGURES = 4
"""Figures of a progress line."""


class LineKind(StrEnum):
    """What a line tells."""

    STATE = "state"
    PROGRESS = "progress"
    NOTE = "note"


@dataclass(frozen=True)
class Line:
    """One thing to show."""

    kind: LineKind
    run_id: str
    step: str | None
    """The step of the pipeline that is followed; None for the run itself."""
    state: State
    text: str
    """Reason, progress or note; empty when the state says all."""
    progress: Mapping[str, Any]
    elapsed_seconds: float
    """Since the followed run was submitted."""


@dataclass
class _Shown:
    state: State | None = None
    reason: str | None = None
    progress: Mapping[str, Any] = field(default_factory=dict)
    at: float = 0.0


def follow(
    store: Store,
    run_id: str,
    *,
    emit: Callable[[Line], None],
    should_stop: Callable[[], bool] = lambda: False,
    poll_seconds: float = POLL_SECONDS,
    progress_seconds: float = PROGRESS_SECONDS,
) -> Run:
    """Emit lines until the run has ended or ``should_stop`` says so; the run as it was last seen.

    Raises:
        RunNotFound: no such run.
        StoreError: the store was away for more than ``OUTAGE_SECONDS``.
    """
    follower = _Follower(store, run_id, emit, progress_seconds)
    away_since: float | None = None
    while True:
        try:
            run = follower.look()
            away_since = None
        except StoreError:
            away_since = away_since or time.monotonic()
            if time.monotonic() - away_since > OUTAGE_SECONDS:
                raise
        else:
            if run.state.is_terminal or should_stop():
                return run
        time.sleep(poll_seconds)


def describe_progress(progress: Mapping[str, Any]) -> str:
    """Progress in a few words: a share as per cent, rows as done of all, else the step, then some figures."""
    rest = dict(progress)
    words = []
    share, remaining = rest.pop("share_done", None), rest.pop("eta_seconds", None)
    if isinstance(share, int | float):
        words.append(f"{100 * share:.0f} %")
    done, total = rest.pop("rows_done", None), rest.pop("rows_total", None)
    step, steps = rest.pop("step", None), rest.pop("steps", rest.pop("total_steps", None))
    if done is not None:
        words.append(_of("rows", done, total))
    elif step is not None:
        words.append(_of("step", step, steps))
    figures = [f"{name} {value:.4g}" for name, value in rest.items() if isinstance(value, int | float)]
    left = [f"{remaining:.0f} s left"] if isinstance(remaining, int | float) else []
    return "  ".join([*words, *figures[:MAX_FIGURES], *left])


def format_line(line: Line) -> str:
    """A line for a terminal or a log: time, step, state, text."""
    minutes, seconds = divmod(int(line.elapsed_seconds), 60)
    name = line.step or line.run_id
    return f"{minutes:3d}:{seconds:02d}  {name:<20}  {line.state:<9}  {line.text}".rstrip()


class _Follower:
    """What was shown of each run already."""

    def __init__(self, store: Store, run_id: str, emit: Callable[[Line], None], progress_seconds: float) -> None:
        self._store, self._run_id, self._emit, self._progress_seconds = store, run_id, emit, progress_seconds
        self._shown: dict[str, _Shown] = {}
        self._began = time.monotonic()
        self._warned = False

    def look(self) -> Run:
        """Read once and emit what is new; the followed run's own line comes before its steps', its end after them."""
        run = self._store.get(self._run_id)
        steps = list(reversed(self._store.list(parent=run.id, limit=10_000))) if run.kind == "pipeline" else []
        for item in [*steps, run] if run.state.is_terminal else [run, *steps]:
            self._show(item, run)
        if run.state is State.PENDING and not self._warned and time.monotonic() - self._began > UNCLAIMED_SECONDS:
            self._warned = True
            self._say(LineKind.NOTE, run, run, "nobody takes it up: no coordinator seems to run (see `distox status`)")
        return run

    def _show(self, item: Run, run: Run) -> None:
        shown = self._shown.setdefault(item.id, _Shown())
        if item.state is not shown.state or (item.state is State.QUEUED and item.reason != shown.reason):
            again = shown.state is not None and item.state is State.STARTING and item.epoch > 1
            text = item.reason or (f"attempt {item.epoch}" if again else "")
            if item.state is not State.PENDING or item.parent is None:
                self._say(LineKind.STATE, item, run, text)
            shown.state, shown.reason, shown.at = item.state, item.reason, time.monotonic()
        elif self._has_progress(item, shown):
            self._say(LineKind.PROGRESS, item, run, describe_progress(item.progress))
            shown.progress, shown.at = item.progress, time.monotonic()

    def _has_progress(self, item: Run, shown: _Shown) -> bool:
        is_new = item.state is State.RUNNING and bool(item.progress) and item.progress != shown.progress
        return is_new and time.monotonic() - shown.at >= self._progress_seconds

    def _say(self, kind: LineKind, item: Run, run: Run, text: str) -> None:
        until = item.finished_at or datetime.now(UTC)
        elapsed = max(0.0, (until - run.created_at).total_seconds())
        step = item.step if item.id != run.id else None
        self._emit(Line(kind, item.id, step, item.state, text, item.progress, elapsed))


def _of(word: str, done: Any, total: Any) -> str:
    return f"{word} {done:,.0f}" + (f"/{total:,.0f}" if isinstance(total, int | float) and total else "")
