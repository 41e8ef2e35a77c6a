"""The pool: Ray actors that work a run's queue, fed and watched by the attempt's driver.

Guarantee: the run is finished when the rows of committed parts equal the plan, never because the queue is empty; what
an earlier attempt wrote is kept. Afterwards no key of the generation is left.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.schema.kinds import Detoxify
from jobs.context import JobStopped, Report
from workers.broker import Answer, Broker
from workers.messages import Task
from workers.sink import Sink
from workers.source import open_source

log = logging.getLogger(__name__)

WATCH_SECONDS = 0.25
REPORT_SECONDS = 1.0
MAX_DEATHS = 10
"""Actors that may die in one attempt before it is given up."""


class PoolError(RuntimeError):
    """The pool can't go on; the attempt is tried again from the parts that are written."""


@dataclass(frozen=True)
class BulkResult:
    """A finished dump."""

    rows: int
    counts: Mapping[str, int]
    """Rows by status."""
    manifest: Path
    merged: Path | None


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
) -> BulkResult:
    """Detoxify the spec's input into ``output``.

    Raises:
        SourceError: the input can't be used.
        JobStopped: ``should_stop`` said so.
        PoolError: actors die again and again, or Redis lost the queue.
    """
    source = open_source(spec.input)
    sink = Sink(output, source, spec.rows.format)
    plan = list(source.plan(spec.queue.rows_per_task))
    generation = next_generation()
    broker = Broker(redis_url, run, generation)
    done = {(part.first_row, part.last_row) for part in sink.parts()}
    todo = [task for task in plan if (task.first_row, task.last_row) not in done]
    try:
        broker.open()
        pool = _Pool(spec, run, generation, redis_url, output)
        try:
            _watch(pool, broker, todo, plan, spec, report, should_stop)
        finally:
            pool.end()
    finally:
        broker.delete()
    source.check_unchanged()
    parts = sink.parts()
    if [(part.first_row, part.last_row) for part in parts] != [(task.first_row, task.last_row) for task in plan]:
        raise PoolError("the parts don't cover the plan; the attempt is tried again")
    manifest = sink.finish(parts, epoch=epoch)
    counts: Counter[str] = Counter()
    for part in parts:
        counts.update(part.counts)
    merged = sink.merge(parts, epoch=epoch) if spec.rows.merge else None
    return BulkResult(counts.total(), dict(counts), manifest, merged)


class _Pool:
    """The actors; a dead one is replaced."""

    def __init__(self, spec: Detoxify, run: str, generation: int, redis_url: str, output: Path) -> None:
        import ray

        options = {"num_cpus": spec.resources.cpus, "num_gpus": spec.resources.gpus, "max_concurrency": 2}
        remote: Any = ray.remote
        self._actor = remote(**options)(_Actor)
        self._arguments = (spec.model_dump(mode="json"), generation, run, redis_url, str(output))
        self._running: dict[Any, Any] = {}
        self._deaths = 0
        self._started = 0
        for _ in range(spec.resources.num_workers):
            self._start()

    def check(self) -> None:
        """Replace the dead.

        Raises:
            PoolError: too many died, or Redis lost the queue.
        """
        import ray

        ended, _ = ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        for reference in ended:
            self._running.pop(reference)
            try:
                answer = ray.get(reference)
            except ray.exceptions.RayActorError as error:
                self._deaths += 1
                if self._deaths > MAX_DEATHS:
                    raise PoolError(f"{self._deaths} workers died, the last: {error}") from error
                log.warning("a worker died; another takes its place")
                self._start()
            except ray.exceptions.RayTaskError as error:
                raise error.as_instanceof_cause() from error  # type: ignore[no-untyped-call]
            else:
                if answer == Answer.LOST:
                    raise PoolError("Redis lost the queue; the attempt is tried again from its parts")

    def end(self) -> None:
        """End every actor; what it held is claimed again or covered by its part."""
        import ray

        for actor in self._running.values():
            ray.kill(actor)
        self._running.clear()

    def _start(self) -> None:
        actor = self._actor.remote(*self._arguments)
        self._started += 1
        self._running[actor.run.remote(f"worker-{self._started}")] = actor


class _Actor:
    """One worker in a process of Ray's, the model loaded once."""

    def __init__(self, spec: dict[str, Any], generation: int, run: str, redis_url: str, output: str) -> None:
        from configs.load import validate_spec
        from jobs.detoxify import Detoxifier
        from workers.worker import Worker

        loaded = validate_spec(spec)
        assert isinstance(loaded, Detoxify), "the pool sends its own spec"
        source = open_source(loaded.input)
        sink = Sink(Path(output), source, loaded.rows.format)
        detoxifier = Detoxifier.load(loaded, num_threads=loaded.resources.cpus)
        broker = Broker(redis_url, run, generation)
        self._worker = Worker(broker, source, sink, detoxifier.rewrite, generation=generation, queue=loaded.queue)

    def run(self, name: str) -> str:
        """Work until the queue is deleted."""
        return str(self._worker.run(name, lambda: False))


def _watch(
    pool: _Pool,
    broker: Broker,
    todo: list[Task],
    plan: list[Task],
    spec: Detoxify,
    report: Report,
    should_stop: Callable[[], bool],
) -> None:
    """Feed the queue and report until every row of ``todo`` is committed."""
    total, goal = sum(task.num_rows for task in plan), sum(task.num_rows for task in todo)
    waiting, began, reported = list(reversed(todo)), time.monotonic(), 0.0
    while True:
        if should_stop():
            raise JobStopped
        while waiting and broker.put(waiting[-1], max_rows=spec.queue.max_rows_queued) is Answer.OK:
            waiting.pop()
        counters = broker.counters()
        done, seconds = counters.get("done", 0), time.monotonic() - began
        if time.monotonic() - reported > REPORT_SECONDS or done >= goal:
            reported = time.monotonic()
            rate = done / seconds
            figures = {"rows_done": float(total - goal + done), "rows_total": float(total), "rows_per_second": rate}
            figures["rows_quarantined"] = float(counters.get("quarantined", 0))
            figures["share_done"] = (total - goal + done) / max(total, 1)
            report(figures | ({"eta_seconds": (goal - done) / rate} if rate else {}), total - goal + done)
        if done >= goal:
            return
        if broker.is_lost():
            raise PoolError("Redis lost the queue; the attempt is tried again from its parts")
        pool.check()
        time.sleep(WATCH_SECONDS)
