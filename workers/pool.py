"""The pool: Ray actors that work a run's queue, each a ``Worker`` in a process of its own.

Guarantee: a dead actor is replaced and a hung one ended by its pid, both counted as crashes of the task they held;
actors that die again and again without any progress end the run with the reason. When ``run_pool`` returns or raises,
no actor is left. It knows nothing of rows and parts.
"""

from __future__ import annotations

import functools
import logging
import os
import signal
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from configs.schema.base import Resources
from configs.schema.kinds import Detoxify
from jobs.context import Report
from workers.broker import Watched
from workers.bulk import Bulk, BulkResult, PoolError, run_bulk
from workers.lease import Beat, why_hung
from workers.worker import Ending, Handler, HandlerFactory, Worker, WorkerSettings

log = logging.getLogger(__name__)

PLACE_SECONDS = 180.0
"""The scheduler has seen room for the pool; Ray must give it to one actor by then."""
LOAD_SECONDS = 600.0
"""How long an actor may load its model before it counts as hung."""
MAX_LOAD_FAILURES = 3
"""Actors in a row that may fail before any of them has worked."""
MAX_DEATHS = 12
"""Actors in a row, besides one for each worker, that may die without a commit or a bisection between: a row that kills
its worker takes a handful to be found."""
BYTES_PER_GB = 1_000_000_000
_LOG_FORMAT = "%(levelname)s %(name)s: %(message)s"


def run_pool(
    spec: Detoxify,
    *,
    run: str,
    epoch: int,
    next_generation: Callable[[], int],
    redis_url: str,
    output: Path,
    report: Report,
    should_stop: Callable[[], bool],
    make_handler: HandlerFactory | None = None,
) -> BulkResult:
    """Detoxify the spec's input into ``output``; this process must be connected to Ray.

    Args:
        spec: resolved.
        run: id of the run; names its keys in Redis.
        epoch: of the attempt; names its manifest.
        next_generation: a number that is higher than all it gave before to any attempt of the run.
        redis_url: as the actors reach it too.
        output: folder of the run, the same for all its attempts: what an earlier one committed is kept.
        report: gets live figures about once a second.
        should_stop: looked at many times a second.
        make_handler: what the actors call for the rows; the spec's model when left out.

    Raises:
        SourceError: the input can't be used, or has changed since it was planned.
        ValueError: the model can't be used.
        JobStopped: ``should_stop`` said so; what is committed is kept.
        QueueUnreachable, SinkError, PoolError: Redis, the disk or the workers gave out; what is committed is kept.
    """
    asked = spec.resources
    make_handler = make_handler or functools.partial(load_detoxifier, spec.model_dump(mode="json"), asked.cpus)
    queue = spec.queue

    def settings_of(name: str) -> WorkerSettings:
        return WorkerSettings(
            run, name, redis_url, output, spec.rows.format, queue.task_time_limit_seconds, num_rewrites=spec.samples
        )

    crew = RayCrew(
        asked,
        settings_of,
        make_handler,
        lease_seconds=queue.lease_seconds,
        task_seconds=queue.task_time_limit_seconds,
    )
    bulk = Bulk(run, epoch, output, spec.input, spec.rows, queue, num_rewrites=spec.samples)
    return run_bulk(
        bulk, crew, redis_url=redis_url, next_generation=next_generation, report=report, should_stop=should_stop
    )


def load_detoxifier(spec: Mapping[str, Any], num_threads: int) -> Handler:
    """The model of a detoxify spec, loaded in this process."""
    from configs.load import validate_spec
    from jobs.detoxify import Detoxifier

    loaded = validate_spec(dict(spec))
    assert isinstance(loaded, Detoxify), "a pool works for detoxify specs"
    return Detoxifier.load(loaded, num_threads=num_threads).rewrite


class PoolWorker:
    """The actor. Ray gives it its own process and calls its methods in that process's main thread."""

    def home(self) -> tuple[int, str]:
        """Its pid and node."""
        return os.getpid(), ray.get_runtime_context().get_node_id()

    def work(self, settings: WorkerSettings, make_handler: HandlerFactory) -> Ending:
        """Work until the run is over."""
        logging.basicConfig(level=logging.INFO, format=_LOG_FORMAT)
        worker = Worker(settings, make_handler)
        worker.drain_on_sigterm()
        return worker.run()


@dataclass
class _Member:
    """One actor, as the driver sees it."""

    name: str
    actor: Any
    home: Any
    """Reference to (pid, node); answered once the actor is placed."""
    working: Any
    """Reference to its ending."""
    started_at: float
    place: tuple[int, str] | None = None
    placed_at: float = 0.0
    has_beaten: bool = False


class RayCrew:
    """The actors of one run."""

    def __init__(
        self,
        asked: Resources,
        settings_of: Callable[[str], WorkerSettings],
        make_handler: HandlerFactory,
        *,
        lease_seconds: float,
        task_seconds: float,
    ) -> None:
        self._asked, self._settings_of, self._make_handler = asked, settings_of, make_handler
        self._lease_seconds, self._task_seconds = lease_seconds, task_seconds
        self._members: dict[str, _Member] = {}
        self._progress = -1
        self._num_deaths = 0
        self._has_worked = False

    def start(self) -> None:
        """Ask Ray for all actors, unless that was done."""
        while len(self._members) < self._asked.num_workers:
            self._spawn()

    def tend(self, watched: Watched, *, settled_seconds: float) -> Sequence[str]:
        """Replace the dead, end the hung; the names of both.

        Raises:
            PoolError: they die again and again, or Ray has no room.
            ValueError: the handler can't be loaded, and the spec is to blame.
        """
        if watched.progress != self._progress:
            self._progress, self._num_deaths = watched.progress, 0
        self._note(watched)
        gone = [*self._reap(), *self._end_hung(watched, settled_seconds)]
        self.start()
        return gone

    def end(self, grace_seconds: float) -> None:
        """Let the actors return for so long, then end them."""
        working = {member.working: member for member in self._members.values() if member.place is not None}
        ended = ray.wait(list(working), num_returns=len(working), timeout=grace_seconds)[0] if working else []
        for reference in ended:
            self._drop(working[reference])
        for member in list(self._members.values()):
            self._end_process(member)

    def _spawn(self) -> None:
        name = uuid.uuid4().hex[:12]
        options: dict[str, Any] = {"num_cpus": self._asked.cpus, "num_gpus": self._asked.gpus, "max_restarts": 0}
        if self._asked.memory_gb is not None:
            options["memory"] = int(self._asked.memory_gb * BYTES_PER_GB)
        if self._asked.gpu_type is not None:
            options["accelerator_type"] = self._asked.gpu_type
        remote: Any = ray.remote(PoolWorker)
        actor = remote.options(**options).remote()
        home, working = actor.home.remote(), actor.work.remote(self._settings_of(name), self._make_handler)
        self._members[name] = _Member(name, actor, home, working, time.monotonic())

    def _note(self, watched: Watched) -> None:
        """Take in what is new: who was placed, who works."""
        now = time.monotonic()
        for member in self._members.values():
            if member.place is None and ray.wait([member.home], timeout=0)[0]:
                member.place, member.placed_at = _value_or_none(member.home), now
        for heartbeat in watched.heartbeats:
            if (known := self._members.get(heartbeat.worker)) is not None:
                known.has_beaten = self._has_worked = True
        waiting = [now - member.started_at for member in self._members.values() if member.place is None]
        if len(waiting) == len(self._members) and waiting and min(waiting) > PLACE_SECONDS:
            raise PoolError(
                f"Ray had no room for a worker ({self._asked.cpus} CPUs, {self._asked.gpus:g} GPUs) in "
                f"{PLACE_SECONDS:.0f} s; ask for less in resources, or add nodes"
            )

    def _reap(self) -> list[str]:
        working = {member.working: member for member in self._members.values()}
        ended, _ = ray.wait(list(working), num_returns=len(working), timeout=0)
        names = []
        for reference in ended:
            member = working[reference]
            self._drop(member)
            names.append(member.name)
            reason = _why_ended(reference)
            if reason is not None:
                self._count_death(member, reason)
        return names

    def _end_hung(self, watched: Watched, settled_seconds: float) -> list[str]:
        beats = {heartbeat.worker: heartbeat for heartbeat in watched.heartbeats}
        names = []
        for member in list(self._members.values()):
            heartbeat = beats.get(member.name)
            reason = ""
            if heartbeat is not None and settled_seconds > self._lease_seconds:
                reason = why_hung(
                    Beat.from_json(heartbeat.beat),
                    heartbeat.age_seconds,
                    lease_seconds=self._lease_seconds,
                    task_seconds=self._task_seconds,
                )
            elif heartbeat is None and member.has_beaten and settled_seconds > self._lease_seconds:
                reason = "no heartbeat since the queue was rebuilt"
            elif heartbeat is None and member.place is not None and not member.has_beaten:
                waited = min(time.monotonic() - member.placed_at, settled_seconds)
                reason = f"not working after {waited:.0f} s" if waited > LOAD_SECONDS else ""
            if reason:
                self._end_process(member)
                names.append(member.name)
                self._count_death(member, f"hung ({reason})")
        return names

    def _count_death(self, member: _Member, reason: str) -> None:
        self._num_deaths += 1
        log.warning("worker %s ended: %s", member.name, reason)
        allowed = MAX_DEATHS + self._asked.num_workers if self._has_worked else MAX_LOAD_FAILURES - 1
        if self._num_deaths > allowed:
            raise PoolError(f"{self._num_deaths} workers ended in a row, the last: {reason}")

    def _drop(self, member: _Member) -> None:
        """Let go of an actor that has ended, or wasn't placed."""
        self._members.pop(member.name, None)
        ray.kill(member.actor, no_restart=True)

    def _end_process(self, member: _Member) -> None:
        """End an actor, whatever it is at: by its pid, because a stopped process hears nobody."""
        self._drop(member)
        place = member.place or (_value_or_none(member.home) if ray.wait([member.home], timeout=0)[0] else None)
        if place is None:
            return
        pid, node = place
        if node == ray.get_runtime_context().get_node_id():
            end_process(pid)
        else:
            strategy = NodeAffinitySchedulingStrategy(node, soft=False)
            ender: Any = ray.remote(end_process)
            ender.options(num_cpus=0, max_retries=0, scheduling_strategy=strategy).remote(pid)


def end_process(pid: int) -> None:
    """End a process of this machine that is an actor of ours, if it is still there."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return
    # A pid may have gone to another process meanwhile; Ray titles an actor's process with its class.
    if PoolWorker.__name__.encode() in command:
        os.kill(pid, signal.SIGKILL)


def _value_or_none(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayError:
        return None


def _why_ended(reference: Any) -> str | None:
    """Why an actor's work ended; None when it was asked to.

    Raises:
        ValueError: the spec is to blame: trying again is no use.
    """
    try:
        ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, ValueError):
            raise cause from None
        return " ".join(f"{type(cause).__name__}: {cause}".split())
    except ray.exceptions.RayError as error:
        return " ".join(str(error).split())[:400]
    return None
