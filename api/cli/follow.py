"""Follows a run through the API and prints what changes: a line for each state, and progress now and then.

It only reads. An API that is away for a while is waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from api.client import Client
    from api.schemas import RunDetail, RunView

POLL_SECONDS = 0.5
PROGRESS_SECONDS = 5.0
"""Between two progress lines of one run."""
UNCLAIMED_SECONDS = 20.0
"""A coordinator takes up a PENDING run within a second; after this long there is none."""
OUTAGE_SECONDS = 60.0
"""How long an API that is away is waited for."""


def follow(client: Client, run_id: str, *, say: Callable[[str], None], poll_seconds: float = POLL_SECONDS) -> RunDetail:
    """Say what happens until the run has ended; the run as it ended.

    Raises:
        ApiUnreachable: the API was away for more than ``OUTAGE_SECONDS``.
        ApiError: no such run, or the key may not see it.
    """
    from api.client import ApiError, ApiUnreachable

    follower = _Follower(say)
    away_since: float | None = None
    while True:
        try:
            run = client.run(run_id)
            away_since = None
        except (ApiUnreachable, ApiError) as error:
            if isinstance(error, ApiError) and error.status < 500 and error.status != 429:
                raise
            away_since = away_since or time.monotonic()
            if time.monotonic() - away_since > OUTAGE_SECONDS:
                raise
        else:
            follower.show(run)
            if run.state.is_terminal:
                return run
        time.sleep(poll_seconds)


@dataclass
class _Shown:
    state: str | None = None
    reason: str | None = None
    progress: dict[str, Any] = field(default_factory=dict)
    at: float = 0.0


class _Follower:
    """What was said of each run already."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._shown: dict[str, _Shown] = {}
        self._began = time.monotonic()
        self._warned = False

    def show(self, run: RunDetail) -> None:
        """The run's own line comes before its steps', its end after them."""
        for item in [*run.children, run] if run.state.is_terminal else [run, *run.children]:
            self._show(item, run)
        if run.state == "PENDING" and not self._warned and time.monotonic() - self._began > UNCLAIMED_SECONDS:
            self._warned = True
            self._say("nobody takes it up: no coordinator seems to run (see `distox status`)")

    def _show(self, item: RunView, run: RunView) -> None:
        from api.cli.watch import describe

        shown = self._shown.setdefault(item.id, _Shown())
        now = time.monotonic()
        if (item.state, item.reason) != (shown.state, shown.reason):
            shown.state, shown.reason, shown.at = item.state, item.reason, now
            if item.state != "PENDING" or item.id == run.id:
                self._line(item, run, item.reason or (f"attempt {item.epoch}" if item.epoch > 1 else ""))
        elif item.progress and item.progress != shown.progress and now - shown.at >= PROGRESS_SECONDS:
            shown.progress, shown.at = item.progress, now
            self._line(item, run, describe(item.progress))

    def _line(self, item: RunView, run: RunView, text: str) -> None:
        until = item.finished_at or datetime.now(UTC)
        minutes, seconds = divmod(int(max(0.0, (until - run.created_at).total_seconds())), 60)
        name = item.step if item.id != run.id and item.step else item.id
        self._say(f"{minutes:3d}:{seconds:02d}  {name:<20}  {item.state:<9}  {text}".rstrip())
