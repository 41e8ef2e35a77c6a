"""A worker: claims a task, reads its rows, has them handled, makes the part durable, commits.

Guarantee: a task ends in exactly one of commit, failure, bisection, release, or a lease that runs out; whatever
happens, each of its rows comes out once. Redis being away is waited out; a queue that Redis lost is left, and its
successor joined. Comment text reaches the handler and the part and nothing else, neither logs nor Redis.
"""

from __future__ import annotations

import json
import logging
import random
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from workers.broker import Answer, Broker, Halted, Lease, Mode, attach
from workers.connection import Connection, QueueUnreachable
from workers.durable import SinkError
from workers.lease import Keeper
from workers.manifest import load_plan
from workers.sink import Quarantined, Rewritten, Sink
from workers.source import Row, Source, SourceError

log = logging.getLogger(__name__)

Handler = Callable[[Sequence[str]], Sequence[Rewritten]]
"""One outcome for each text, in order."""
HandlerFactory = Callable[[], Handler]
"""Loads what the handler needs; called once in each worker's process."""

POLL_SECONDS = (0.005, 0.2)
"""An idle worker asks at first this often, then more and more rarely."""
RETRY_SECONDS = (0.5, 60.0)
"""Backoff of a task that failed: the ceiling of its first delay, and of all."""
MAX_FAILURES = 5
"""Failed tasks in a row after which a worker takes itself for the cause (a GPU in an error state) and ends, before it
uses up the errors of tasks that have nothing wrong with them."""
MAX_DOUBLINGS = 32
"""Of a delay; the ceiling is reached long before."""
JOIN_SECONDS = 300.0
"""How long a worker waits for a queue: longer than a driver needs to rebuild one."""


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker is told."""

    run: str
    name: str
    """Unique to this process."""
    redis_url: str
    output: Path
    """The run's folder; its plan is there before its queue is."""
    format: str
    """Of the parts: ``csv``, ``tsv``, ``jsonl``, or ``input``."""
    task_seconds: float
    """Time limit of one task."""
    num_rewrites: int = 1
    """Columns for rewrites in the parts."""
    grace_seconds: float = 20.0
    """What a running task has left after ``drain``."""


@dataclass(frozen=True)
class Ending:
    """Why a worker stopped."""

    why: str
    """``drained``, or the reason the queue was halted for."""
    num_tasks: int
    """Committed by this worker."""


@dataclass(frozen=True)
class Stop:
    """A reason to halt a whole run, as it travels through Redis: holds no text of a comment."""

    message: str
    is_input: bool = False
    """The input is to blame; trying again is no use."""
    is_fault: bool = True
    """False where the run is simply over or asked to end."""

    def to_json(self) -> str:
        """As it is written to Redis."""
        return json.dumps({"message": self.message, "is_input": self.is_input, "is_fault": self.is_fault})

    @classmethod
    def from_json(cls, text: str) -> Stop:
        """The reverse of ``to_json``."""
        return cls(**json.loads(text))


class HandlerBroken(RuntimeError):  # noqa: N818 (a condition of this process)
    """The handler fails again and again; another process may do better."""


class Worker:
    """One process's loop."""

    def __init__(
        self,
        settings: WorkerSettings,
        make_handler: HandlerFactory,
        *,
        chance: random.Random | None = None,
        end_process: Callable[[], None] | None = None,
    ) -> None:
        self._settings, self._make_handler = settings, make_handler
        self._chance = chance or random.Random()  # noqa: S311
        self._draining = threading.Event()
        self._connection = Connection(settings.redis_url, on_wait=self._give_up_when_draining)
        self._keeper = Keeper(
            settings.redis_url,
            settings.run,
            settings.name,
            task_seconds=settings.task_seconds,
            end_process=end_process,
        )
        self._num_tasks = 0
        self._num_failures = 0
        self._handler: Handler | None = None
        self._source: Source | None = None
        self._sink: Sink | None = None

    def drain(self) -> None:
        """Claim nothing more; a running task has the grace period to finish. Safe in a signal handler."""
        self._draining.set()
        self._keeper.drain(self._settings.grace_seconds)

    def drain_on_sigterm(self) -> None:
        """Let SIGTERM mean ``drain``, where this is the process's main thread."""

        def on_signal(number: int, frame: FrameType | None) -> None:
            self.drain()

        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_signal)

    def run(self) -> Ending:
        """Work until drained or halted.

        Raises:
            QueueUnreachable: Redis was away, or had no queue for this run, for too long.
            HandlerBroken: the handler fails whatever it is given.
        Exception: what loading the handler raises.
        """
        with self._keeper:
            try:
                # Before joining: a model is loaded while the driver still plans.
                self._handler = self._make_handler()
                return self._loop(self._join())
            except _Drained:
                return Ending("drained", self._num_tasks)
            finally:
                self._connection.close()

    def _loop(self, broker: Broker) -> Ending:
        pause = POLL_SECONDS[0]
        while True:
            self._give_up_when_draining()
            claimed = broker.claim(self._settings.name)
            self._keeper.polled()
            if isinstance(claimed, Halted):
                return Ending(claimed.why, self._num_tasks)
            if isinstance(claimed, Lease):
                pause = POLL_SECONDS[0]
                answer = self._hold(broker, claimed)
                self._keeper.polled()
            else:
                answer = claimed
            if answer is Answer.LOST:
                log.warning("worker %s: Redis lost the queue of %s", self._settings.name, self._settings.run)
                broker = self._join(after=broker.generation)
            elif answer is Answer.EMPTY:
                self._draining.wait(pause * self._chance.uniform(0.5, 1.0))
                pause = min(pause * 2, POLL_SECONDS[1])

    def _join(self, after: int = 0) -> Broker:
        """The run's queue, once there is one of a later generation than ``after``."""
        deadline, pause = time.monotonic() + JOIN_SECONDS, POLL_SECONDS[0]
        while True:
            self._give_up_when_draining()
            found = attach(self._connection, self._settings.run)
            self._keeper.polled()
            if found is not None and found.generation > after:
                self._keeper.follow(found.generation, found.lease_seconds)
                self._look_at_plan()
                return Broker(self._connection, self._settings.run, found.generation)
            if time.monotonic() > deadline:
                raise QueueUnreachable(
                    f"Redis has had no queue for run {self._settings.run} for {JOIN_SECONDS:.0f} s; its driver is gone"
                )
            self._draining.wait(pause)
            pause = min(pause * 2, POLL_SECONDS[1])

    def _look_at_plan(self) -> None:
        plan = load_plan(self._settings.output)
        assert plan is not None, "a queue is opened after its plan was saved"
        self._source = plan.source
        settings = self._settings
        self._sink = Sink(settings.output, plan.source, settings.format, num_rewrites=settings.num_rewrites)

    def _hold(self, broker: Broker, lease: Lease) -> Answer:
        self._keeper.hold(lease)
        try:
            answer = self._work(broker, lease)
        except (SourceError, SinkError) as error:
            # Nothing is wrong with the rows: the run must end, and its next attempt goes on from here.
            log.error("run %s is halted: %s", self._settings.run, error)
            broker.release(lease)
            return broker.halt(Stop(str(error), is_input=isinstance(error, SourceError)).to_json())
        finally:
            self._keeper.drop()
        if answer is Answer.STALE:
            log.warning("rows %s at delivery %s are another worker's now", lease.task.id, lease.delivery)
        self._num_tasks += answer is Answer.COMMITTED
        return answer

    def _work(self, broker: Broker, lease: Lease) -> Answer:
        """Do what the lease's mode says."""
        assert self._source is not None, "joined before claiming"
        if lease.mode is Mode.BISECT:
            log.warning("rows %s ended %s workers: bisecting", lease.task.id, lease.crashes)
            return broker.bisect(lease, *self._source.halves(lease.task))
        rows = self._source.read(lease.task)
        if lease.mode is Mode.QUARANTINE:
            log.warning("row %s ended %s workers: quarantined", lease.task.first_row, lease.crashes)
            return self._finish(broker, lease, rows, [Quarantined(f"ended {lease.crashes} workers") for _ in rows])
        try:
            outcomes = self._isolated(rows) if lease.mode is Mode.ISOLATE else self._handled(rows)
        except Exception as error:  # noqa: BLE001 (whatever the handler raises: the task is tried again)
            delay = backoff_seconds(lease.errors + 1, self._chance)
            log.warning(
                "rows %s failed at delivery %s (%s); again in %.1f s",
                lease.task.id,
                lease.delivery,
                place(error),
                delay,
            )
            answer = broker.fail(lease, delay_seconds=delay)
            self._check_handler(error)
            return answer
        return self._finish(broker, lease, rows, outcomes)

    def _check_handler(self, error: Exception) -> None:
        self._num_failures += 1
        if self._num_failures >= MAX_FAILURES:
            raise HandlerBroken(f"{self._num_failures} tasks in a row failed, the last with {place(error)}")

    def _finish(self, broker: Broker, lease: Lease, rows: Sequence[Row], outcomes: Sequence[Rewritten]) -> Answer:
        assert self._sink is not None, "joined before claiming"
        if self._keeper.is_lost:
            return Answer.STALE
        part = self._sink.write(lease.task, rows, outcomes, generation=lease.generation, delivery=lease.delivery)
        return broker.commit(lease, part.counts)

    def _handled(self, rows: Sequence[Row]) -> list[Rewritten]:
        """One outcome for each row; those that can't be read never reach the handler."""
        assert self._handler is not None, "loaded before claiming"
        texts = [row.text for row in rows if row.flaw is None]
        outcomes = list(self._handler(texts)) if texts else []
        assert len(outcomes) == len(texts), "a handler gives one outcome for each text"
        self._num_failures = 0
        following = iter(outcomes)
        return [next(following) if row.flaw is None else Quarantined(row.flaw) for row in rows]

    def _isolated(self, rows: Sequence[Row]) -> list[Rewritten]:
        """Row by row: whose row fails is quarantined."""
        outcomes: list[Rewritten] = []
        for row in rows:
            try:
                outcomes += self._handled([row])
            except Exception as error:  # noqa: BLE001 (whatever the handler raises, for this row alone)
                log.warning("row %s is quarantined (%s)", row.number, place(error))
                outcomes.append(Quarantined(f"failed with {type(error).__name__}"))
        return outcomes

    def _give_up_when_draining(self) -> None:
        if self._draining.is_set():
            raise _Drained


class _Drained(Exception):  # noqa: N818 (unwinds the loop)
    """The worker was asked to end and holds no task."""


def backoff_seconds(num_errors: int, chance: random.Random) -> float:
    """Exponential backoff with full jitter: evenly between 0 and a ceiling that doubles with every error."""
    first, ceiling = RETRY_SECONDS
    return chance.uniform(0.0, min(ceiling, first * 2.0 ** min(num_errors - 1, MAX_DOUBLINGS)))


def place(error: BaseException) -> str:
    """An error's name and where it was raised; its message may hold a comment's text."""
    frames: list[Any] = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"
