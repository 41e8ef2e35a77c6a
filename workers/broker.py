"""The queue of one run and generation: every change of it is one Lua script, every answer a value.

Guarantee: each method either does what it says in one step or changes nothing and says why (``STALE``, ``LOST`` …);
each may be repeated when an answer was lost. What Redis forgot is ``LOST``: missing, of another generation, or of a
server that was restarted since. It knows neither files nor rows beyond their numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from configs.schema.inference import QueueSettings
from workers.connection import Connection
from workers.keys import Keys
from workers.messages import Task

KEY_SECONDS = 7 * 24 * 3600
"""Keys that no driver has looked at for this long expire: the backstop for a run that nobody goes on with."""
BATCH = 64
"""Tasks put in one round trip: enough to hide it, short enough not to hold up the workers' scripts."""


class Answer(StrEnum):
    """What a script said."""

    OPENED = "OPENED"
    PUT = "PUT"
    CLAIMED = "CLAIMED"
    RENEWED = "RENEWED"
    COMMITTED = "COMMITTED"
    FAILED = "FAILED"
    RELEASED = "RELEASED"
    BISECTED = "BISECTED"
    EXPIRED = "EXPIRED"
    HALTED = "HALTED"
    WATCHED = "WATCHED"
    CLOSED = "CLOSED"
    EMPTY = "EMPTY"
    """There is nothing to claim now."""
    STALE = "STALE"
    """The fence is an older one, or the task is done: nothing was changed."""
    LOST = "LOST"
    """Redis doesn't have this generation: nothing was changed."""
    MOVED = "MOVED"
    """Another generation was opened meanwhile."""


class Mode(StrEnum):
    """How a claimed task is to be handled."""

    RUN = "run"
    ISOLATE = "isolate"
    """Its errors are used up: row by row, and a row that fails is quarantined."""
    BISECT = "bisect"
    """Its crashes are used up: put its halves in its place."""
    QUARANTINE = "quarantine"
    """Its only row has killed its workers: quarantine it unseen."""


@dataclass(frozen=True)
class Lease:
    """A worker's time-limited right to a task; (generation, delivery) is its fence."""

    worker: str
    entry: str
    task: Task
    generation: int
    delivery: int
    mode: Mode
    crashes: int
    """Deliveries of this task whose lease expired."""
    errors: int
    """Deliveries of this task that ended in an error."""


@dataclass(frozen=True)
class Halted:
    """Nothing more is to be claimed."""

    why: str


@dataclass(frozen=True)
class Heartbeat:
    """The last word of a worker."""

    worker: str
    age_seconds: float
    """By Redis's clock."""
    beat: str
    """What the worker said, as it wrote it."""


@dataclass(frozen=True)
class Watched:
    """The queue at one moment."""

    halted: str | None
    counters: Mapping[str, int]
    heartbeats: Sequence[Heartbeat]

    @property
    def rows_done(self) -> int:
        """Rows of the parts that were committed in this generation."""
        return self.counters.get("done", 0)

    @property
    def rows_queued(self) -> int:
        """Rows pending, delayed and in flight."""
        return self.counters.get("queued", 0)

    @property
    def progress(self) -> int:
        """Grows with whatever brings the run nearer to its end."""
        return self.counters.get("commits", 0) + self.counters.get("bisections", 0)

    def rows_of(self, status: str) -> int:
        """Rows that were committed with a status in this generation."""
        return self.counters.get(f"status:{status}", 0)


@dataclass(frozen=True)
class Attached:
    """What a worker learns of the current generation."""

    generation: int
    lease_seconds: float


def attach(connection: Connection, run: str) -> Attached | None:
    """The run's current queue; None while there is none, or only one that went through a restart of Redis."""
    names = ("generation", "server", "lease_ms")
    generation, server, lease = connection.fields(Keys(run, 0).key("meta"), *names)
    if generation is None or lease is None or server != connection.server():
        return None
    return Attached(int(generation), int(lease) / 1000)


def is_there(connection: Connection, run: str) -> bool:
    """Whether the run has a queue of any generation."""
    return connection.fields(Keys(run, 0).key("meta"), "generation") != [None]


class Broker:
    """One generation's queue, seen through one thread's connection."""

    def __init__(self, connection: Connection, run: str, generation: int) -> None:
        self._connection, self.generation = connection, generation
        self._keys = Keys(run, generation)

    def open(self, settings: QueueSettings) -> Answer:
        """Become the run's current queue and delete the one before: OPENED, or STALE when a later one is current."""
        while True:
            (before,) = self._connection.fields(self._keys.key("meta"), "generation")
            old = [] if before in (None, str(self.generation)) else Keys(self._keys.run, int(before)).of_generation()
            limits = settings.max_rows_queued, _ms(settings.lease_seconds), settings.max_errors, settings.max_crashes
            keys = [*self._keys.of_script("open"), *old]
            arguments = (before or "", *limits, KEY_SECONDS * 1000)
            answer = Answer(self._connection.run("open", keys, self.generation, *arguments))
            if answer is not Answer.MOVED:
                return answer

    def put(self, tasks: Sequence[Task]) -> int | Answer:
        """Add tasks in the order of their rows; how many of the first ones are in the queue now, or LOST.

        Fewer than given means that the bound is reached. Tasks that were put before count as put.
        """
        batch = tasks[:BATCH]
        flat = [item for task in batch for item in (task.first_row, task.last_row, task.to_json())]
        reply = self._run("put", *flat)
        return int(reply[1]) if reply[0] == Answer.PUT else Answer(reply[0])

    def claim(self, worker: str) -> Lease | Halted | Answer:
        """A task under a lease, Halted, EMPTY or LOST. A worker that holds a task gets that one again."""
        reply = self._run("claim", worker)
        if reply[0] == Answer.HALTED:
            return Halted(reply[1])
        if reply[0] != Answer.CLAIMED:
            return Answer(reply[0])
        _, entry, message, delivery, crashes, errors, mode = reply
        task = Task.from_json(message)
        return Lease(worker, entry, task, self.generation, int(delivery), Mode(mode), int(crashes), int(errors))

    def renew(self, worker: str, beat: str, lease: Lease | None) -> Answer:
        """Note the worker's heartbeat and lengthen its lease, if it holds one: RENEWED, STALE or LOST."""
        held = ("", 0) if lease is None else (lease.entry, lease.delivery)
        return Answer(self._run("renew", worker, beat, *held))

    def commit(self, lease: Lease, counts: Mapping[str, int]) -> Answer:
        """End the task, whose part and sidecar are durable: COMMITTED, STALE or LOST.

        Args:
            lease: the right to do so.
            counts: rows by status; they sum to the rows of the task.
        """
        assert sum(counts.values()) == lease.task.num_rows, "one outcome for each row"
        flat = [item for pair in counts.items() for item in pair]
        return Answer(self._run("commit", *_fence(lease), lease.task.first_row, lease.task.last_row, *flat))

    def fail(self, lease: Lease, *, delay_seconds: float) -> Answer:
        """Give the task back after an error, to be claimed again after a delay: FAILED, STALE or LOST."""
        return Answer(self._run("fail", *_fence(lease), _ms(delay_seconds)))

    def release(self, lease: Lease) -> Answer:
        """Give the task back at once and without a count: RELEASED, STALE or LOST."""
        return Answer(self._run("release", *_fence(lease)))

    def bisect(self, lease: Lease, left: Task, right: Task) -> Answer:
        """Put the halves of the task in its place: BISECTED, STALE or LOST."""
        assert left.num_rows + right.num_rows == lease.task.num_rows, "the halves are the whole"
        return Answer(self._run("bisect", *_fence(lease), left.to_json(), right.to_json()))

    def expire(self, worker: str) -> Answer:
        """End the lease of a worker that is dead: EXPIRED or LOST."""
        return Answer(self._run("expire", worker))

    def halt(self, why: str) -> Answer:
        """Let nobody claim anything more: HALTED or LOST. The first reason counts."""
        return Answer(self._run("halt", why))

    def watch(self, *, extend: bool = False) -> Watched | Answer:
        """Look at the queue, and keep its keys from expiring if ``extend``; LOST when it isn't there."""
        reply = self._run("watch", KEY_SECONDS * 1000 if extend else "")
        if reply[0] != Answer.WATCHED:
            return Answer(reply[0])
        _, now, halted, counters, beats = reply
        heartbeats = [_heartbeat(worker, packed, int(now)) for worker, packed in _pairs(beats)]
        return Watched(halted or None, {name: int(value) for name, value in _pairs(counters)}, heartbeats)

    def committed(self) -> dict[tuple[int, int], int]:
        """(first row, last row) → delivery of every part that was committed in this generation."""
        marks = self._connection.whole(self._keys.key("done"))
        split = ((int(first), mark.partition(":")) for first, mark in marks.items())
        return {(first, int(last)): int(delivery) for first, (last, _, delivery) in split}

    def close(self) -> Answer:
        """Delete every key of the run: CLOSED, or LOST when there was nothing or a later generation, which stays."""
        return Answer(self._run("close"))

    def _run(self, script: str, *arguments: str | int) -> Any:
        return self._connection.run(script, self._keys.of_script(script), self.generation, *arguments)


def _fence(lease: Lease) -> tuple[str, str, int]:
    return lease.worker, lease.entry, lease.delivery


def _heartbeat(worker: str, packed: str, now_ms: int) -> Heartbeat:
    at_ms, beat = json.loads(packed)
    return Heartbeat(worker, max(0.0, (now_ms - at_ms) / 1000), beat)


def _pairs(flat: Sequence[str]) -> list[tuple[str, str]]:
    return list(zip(flat[::2], flat[1::2], strict=True))


def _ms(seconds: float) -> int:
    return math.ceil(seconds * 1000)
