"""Keeps a worker's lease and heartbeat alive from a thread of the worker's own process.

Guarantee: a process that is stopped, dead, or held up by C code loses its lease. A lease is lengthened only while it
is still this worker's, and no longer than a task's time limit. At the end of a drain's grace period an unfinished
task goes back to the queue and the process ends. It knows nothing of what a task does.
"""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Self

from workers.broker import Answer, Broker, Lease, attach
from workers.connection import Connection, QueueUnreachable

log = logging.getLogger(__name__)

BEATS_PER_LEASE = 5
"""Three renewals may be late before a lease is lost."""
MAX_BEAT_SECONDS = 2.0
"""A task's time limit and a worker's health are seen by the pool this late at most."""
TICK_SECONDS = 0.25
"""How late the end of a grace period may be noticed; a signal handler can't wake the thread by its lock."""


@dataclass(frozen=True)
class Beat:
    """What a worker says of itself with every renewal."""

    pid: int
    host: str
    task_seconds: float | None
    """How long it has been at its task; None when it has none."""
    silent_seconds: float
    """Since Redis last answered its main loop; grows while it is at a task."""

    def to_json(self) -> str:
        """As it is written to Redis."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Beat:
        """The reverse of ``to_json``."""
        return cls(**json.loads(text))


def why_hung(beat: Beat, age_seconds: float, *, lease_seconds: float, task_seconds: float) -> str:
    """Why a worker with this last heartbeat must be ended; empty when it is healthy.

    A worker without a task is healthy only if its main loop has reached Redis recently.
    """
    if age_seconds > lease_seconds:
        return f"no heartbeat for {age_seconds:.0f} s"
    if beat.task_seconds is not None:
        spent = beat.task_seconds + age_seconds
        return f"at one task for {spent:.0f} s" if spent > task_seconds else ""
    idle = beat.silent_seconds + age_seconds
    return f"no poll for {idle:.0f} s" if idle > lease_seconds else ""


class Keeper:
    """A thread with a connection of its own; a context manager."""

    def __init__(
        self, url: str, run: str, worker: str, *, task_seconds: float, end_process: Callable[[], None] | None = None
    ) -> None:
        """Make a keeper for one worker.

        Args:
            url: of Redis.
            run: whose queue.
            worker: the worker's name.
            task_seconds: no lease is lengthened beyond this time at one task.
            end_process: called at the end of a drain's grace period, when a task was still unfinished.
        """
        self._connection = Connection(url, on_wait=self._give_up_when_drained)
        self._run_id, self._worker, self._task_seconds = run, worker, task_seconds
        self._end_process = end_process or _end_this_process
        self._lock = threading.Condition()
        self._broker: Broker | None = None
        self._beat_seconds = MAX_BEAT_SECONDS
        self._beat_at = 0.0
        self._lease: Lease | None = None
        self._lease_since = 0.0
        self._is_lost = False
        self._polled_at = time.monotonic()
        self._drain_until = math.inf
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name=f"keeper {worker}", daemon=True)

    def __enter__(self) -> Self:
        """Begin to beat, once there is a queue to follow."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the thread; a lease that is still held runs out."""
        with self._lock:
            self._is_closed = True
            self._lock.notify()
        self._thread.join(timeout=1.0)

    def follow(self, generation: int, lease_seconds: float) -> None:
        """Beat on the queue of this generation from now on."""
        with self._lock:
            self._broker = Broker(self._connection, self._run_id, generation)
            self._beat_seconds = min(MAX_BEAT_SECONDS, lease_seconds / BEATS_PER_LEASE)
            self._beat_at = 0.0
            self._lock.notify()

    def polled(self) -> None:
        """Redis has answered the main loop."""
        self._polled_at = time.monotonic()

    def hold(self, lease: Lease) -> None:
        """Keep this lease from now on."""
        with self._lock:
            self._lease, self._lease_since, self._is_lost = lease, time.monotonic(), False

    def drop(self) -> None:
        """Keep no lease any more; after this nothing is given back behind the worker's back."""
        with self._lock:
            self._lease = None

    @property
    def is_lost(self) -> bool:
        """Whether the lease that is held has gone to another worker, or its queue is gone."""
        return self._is_lost

    def drain(self, grace_seconds: float) -> None:
        """Give an unfinished task back after this long, and end the process. Safe in a signal handler."""
        self._drain_until = min(self._drain_until, time.monotonic() + grace_seconds)

    def _run(self) -> None:
        while True:
            with self._lock:
                self._lock.wait(min(TICK_SECONDS, self._beat_seconds))
                if self._is_closed:
                    return
                broker, lease = self._broker, self._lease
            try:
                if time.monotonic() >= self._drain_until and lease is not None:
                    self._give_back(broker)
                    return
                if broker is not None and time.monotonic() - self._beat_at >= self._beat_seconds:
                    self._beat(broker, lease)
            except _DrainOver:
                self._end_process()
                return
            except QueueUnreachable as error:
                # The main loop meets the same and decides; a lease that can't be renewed runs out.
                log.warning("worker %s: no heartbeat: %s", self._worker, error)

    def _beat(self, broker: Broker, lease: Lease | None) -> None:
        self._beat_at = now = time.monotonic()
        spent = None if lease is None else now - self._lease_since
        beat = Beat(os.getpid(), socket.gethostname(), spent, now - self._polled_at)
        # Beyond the time limit another worker may have the task, also while nobody is there to end this process.
        is_kept = (
            lease is not None and lease.generation == broker.generation and now - self._lease_since < self._task_seconds
        )
        answer = broker.renew(self._worker, beat.to_json(), lease if is_kept else None)
        if answer is not Answer.RENEWED and lease is not None:
            with self._lock:
                self._is_lost = self._is_lost or self._lease is lease
        if answer is Answer.LOST:
            self._follow_successor(broker)

    def _follow_successor(self, broker: Broker) -> None:
        """Beat on the queue that was rebuilt, also while the main loop is still at a task of the one that was lost."""
        found = attach(self._connection, self._run_id)
        if found is not None and found.generation > broker.generation:
            self.follow(found.generation, found.lease_seconds)

    def _give_back(self, broker: Broker | None) -> None:
        # Under the lock: the main loop can't begin another task meanwhile.
        with self._lock:
            if self._lease is not None and broker is not None:
                answer = broker.release(self._lease)
                log.info(
                    "rows %s of %s unfinished at the end of the grace: %s", self._lease.task.id, self._run_id, answer
                )
            self._end_process()

    def _give_up_when_drained(self) -> None:
        if time.monotonic() >= self._drain_until or self._is_closed:
            raise _DrainOver


class _DrainOver(Exception):  # noqa: N818 (unwinds a wait)
    """Redis is away and the grace period over."""


def _end_this_process() -> None:
    os._exit(0)
