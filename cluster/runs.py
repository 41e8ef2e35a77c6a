"""What a run is: its states, the legal moves between them, and the budgets that decide what follows a failed attempt.

Pure data and pure functions: it knows no database, no clock and no Ray.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from configs.load import validate_spec
from configs.schema.kinds import AnySpec

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Base 32 whose order is that of ASCII, without the letters that look like digits."""
_TIME_DIGITS = 11
"""55 bits of microseconds since 1970: enough for a thousand years."""
_RANDOM_DIGITS = 7
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class State(StrEnum):
    """Where a run is."""

    PENDING = "PENDING"
    """Accepted; waits for the steps before it."""
    QUEUED = "QUEUED"
    """Waits for room on the cluster."""
    STARTING = "STARTING"
    """An attempt was begun; its driver has not reported yet."""
    RUNNING = "RUNNING"
    """An attempt works, or a pipeline's steps do."""
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing follows."""
        return not TRANSITIONS[self]

    @property
    def has_attempt(self) -> bool:
        """Whether an attempt is under way (for a run that is no pipeline)."""
        return self in (State.STARTING, State.RUNNING)


TRANSITIONS: Mapping[State, frozenset[State]] = {
    # A pipeline has no attempts: it is RUNNING once its steps exist.
    State.PENDING: frozenset({State.QUEUED, State.RUNNING, State.FAILED, State.CANCELLED}),
    State.QUEUED: frozenset({State.STARTING, State.FAILED, State.CANCELLED}),
    State.STARTING: frozenset({State.RUNNING, State.QUEUED, State.FAILED, State.CANCELLED}),
    State.RUNNING: frozenset({State.QUEUED, State.SUCCEEDED, State.FAILED, State.CANCELLED}),
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
}
"""State → the states that may follow; the store refuses every other move."""


class Cause(StrEnum):
    """Why an attempt ended without success."""

    ERROR = "error"
    """An error of its own; counts against ``retries.errors``."""
    WRONG_INPUT = "wrong input"
    """The spec or its input is wrong: the same would happen again, so it is never retried."""
    LOST = "lost"
    """Its process, node or cluster went away; counts against ``retries.lost_nodes``."""


class Directive(StrEnum):
    """What a heartbeat is answered with."""

    CONTINUE = "CONTINUE"
    STOP = "STOP"


@dataclass(frozen=True)
class Run:
    """A submitted spec and how it goes, as one read of the store saw it."""

    id: str
    name: str | None
    kind: str
    owner: str
    state: State
    reason: str | None
    """Why it is where it is, in one line: an error, or what a QUEUED run waits for."""
    spec: dict[str, Any]
    """The resolved spec; the references of a step are resolved when it is QUEUED."""
    parent: str | None
    """The pipeline run this is a step of."""
    step: str | None
    submission_id: str | None
    epoch: int
    """Number of the latest attempt; 0 before the first."""
    created_at: datetime
    started_at: datetime | None
    """When the first attempt reported (a pipeline: when its steps were made)."""
    finished_at: datetime | None
    state_at: datetime
    """When the state last changed."""
    cancel_requested: bool
    heartbeat_at: datetime | None
    """Last sign of life of the current attempt; None until its driver reports."""
    progress: dict[str, Any]
    errors: int
    """Attempts lost to errors so far."""
    lost: int
    """Attempts lost with their process, node or cluster so far."""
    output: str | None
    """Absolute folder of the attempt that finished."""
    retry_at: datetime | None
    """A QUEUED run whose attempt has failed isn't tried again before this; None until the coordinator has drawn it."""

    def load_spec(self) -> AnySpec:
        """The spec as a validated object."""
        return validate_spec(self.spec, source=self.id)


def state_after(run: Run, cause: Cause) -> State:
    """Where a run goes whose attempt ended with ``cause``: back to QUEUED with budget left, else it has FAILED.

    A run that was asked to stop is CANCELLED, whatever ended the attempt.
    """
    retries = run.spec.get("retries", {})
    if run.cancel_requested:
        return State.CANCELLED
    if cause is Cause.ERROR and run.errors < int(retries.get("errors", 0)):
        return State.QUEUED
    if cause is Cause.LOST and run.lost < int(retries.get("lost_nodes", 0)):
        return State.QUEUED
    return State.FAILED


def new_run_id(now: datetime, *, offset: int = 0) -> str:
    """A new id: ``r-`` and 18 characters that sort by time.

    Args:
        now: aware time of creation.
        offset: microseconds added to it, so that runs made together sort in their order.
    """
    moment = (now - _EPOCH) // timedelta(microseconds=1) + offset
    return f"r-{_digits(moment, _TIME_DIGITS)}{_digits(secrets.randbits(5 * _RANDOM_DIGITS), _RANDOM_DIGITS)}"


def job_id(run_id: str, epoch: int) -> str:
    """The Ray submission id of one attempt: Ray refuses a second job of the same id, so an attempt is launched once."""
    return f"{run_id}-a{epoch}"


def _digits(number: int, count: int) -> str:
    return "".join(_ALPHABET[(number >> (5 * index)) & 31] for index in reversed(range(count)))
