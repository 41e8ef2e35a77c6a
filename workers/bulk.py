"""Drives one run's queue from the plan to the merged file, whoever the workers are.

Guarantee: the run is finished when the rows of committed parts equal the plan, never because the queue is empty. A
queue that Redis lost is rebuilt in a new generation from the sidecars. However it ends, no key of the run is left. It
knows neither Ray nor what the workers do with the text.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from configs.schema.inference import QueueSettings, RowInput, RowOutput
from jobs.context import JobStopped, Report
from workers.broker import BATCH, Answer, Broker, Watched, is_there
from workers.connection import Connection, QueueUnreachable
from workers.durable import SinkError
from workers.manifest import (
    check_coverage,
    choose,
    count_candidates,
    count_rows,
    delete_others,
    load_plan,
    merge,
    remaining,
    save_plan,
    write_manifest,
)
from workers.messages import Task
from workers.sink import QUARANTINED, Part, Sink, part_name, read_part, read_parts, sidecar_name
from workers.source import Plan, Source, SourceError, make_plan, open_source
from workers.worker import Stop

log = logging.getLogger(__name__)

POLL_SECONDS = 0.05
"""Between two looks at the queue; at 20,000 rows a second a bound of 10,000 rows lasts ten of them."""
EXTEND_SECONDS = 1.0
"""Between two extensions of the keys' life: keys that came since the last one have no end yet."""
REPORT_SECONDS = 1.0
RATE_SECONDS = 15.0
"""Rows per second are those of the last so many seconds."""
STOP_SECONDS = 1.0
"""What running tasks have left when the run is to stop: a driver that gets SIGTERM must be through in two seconds."""
END_SECONDS = 5.0
"""How long idle workers may take to see that the run is over."""
CLEANUP_SECONDS = 2.0
"""How long the deletion of the keys waits for Redis."""
MAX_REBUILDS = 5
"""In a row without a committed row between them."""


class PoolError(RuntimeError):
    """The run can't go on here; another attempt goes on from the parts that are committed."""


@dataclass(frozen=True)
class BulkResult:
    """A finished dump."""

    rows: int
    counts: Mapping[str, int]
    """Rows by status."""
    manifest: Path
    merged: Path | None
    candidates: Mapping[str, int]
    """Rewrites that were kept, and candidates that were dropped by reason."""


@dataclass(frozen=True)
class Bulk:
    """What is to be done."""

    run: str
    epoch: int
    output: Path
    input: RowInput
    rows: RowOutput
    queue: QueueSettings
    num_rewrites: int = 1
    """Of a row, at most."""


class Crew(Protocol):
    """The workers of a run."""

    def start(self) -> None:
        """Begin to start them, unless that was done; returns at once."""

    def tend(self, watched: Watched, *, settled_seconds: float) -> Sequence[str]:
        """Replace the dead, end the hung; the names of those whose leases are to end now.

        Args:
            watched: the queue at this moment.
            settled_seconds: how long this queue has been there and Redis has answered without a break.
        """

    def end(self, grace_seconds: float) -> None:
        """Let them return for so long, then end them. May be called again."""


def run_bulk(
    bulk: Bulk,
    crew: Crew,
    *,
    redis_url: str,
    next_generation: Callable[[], int],
    report: Report,
    should_stop: Callable[[], bool],
) -> BulkResult:
    """Have every row of the input handled, exactly once.

    Raises:
        SourceError: the input can't be used, or has changed since it was planned.
        JobStopped: ``should_stop`` said so; what is committed is kept.
        QueueUnreachable, SinkError, PoolError: Redis, the disk or the workers gave out; what is committed is kept.
    """
    return _Drive(bulk, crew, redis_url, next_generation, report, should_stop).run()


class _Drive:
    """One attempt."""

    def __init__(
        self,
        bulk: Bulk,
        crew: Crew,
        redis_url: str,
        next_generation: Callable[[], int],
        report: Report,
        should_stop: Callable[[], bool],
    ) -> None:
        self._bulk, self._crew, self._redis_url = bulk, crew, redis_url
        self._next_generation, self._should_stop = next_generation, should_stop
        self._progress = Progress(report)
        self._connection = Connection(redis_url, on_wait=self._check_stop)
        self._generation = 0
        self._extended_at = 0.0

    def run(self) -> BulkResult:
        self._connection.check()
        self._delete_leftovers()
        source = open_source(self._bulk.input)
        grace_seconds = 0.0
        try:
            plan = self._load_plan(source)
            if plan is None:
                # Models are loaded while the input is planned.
                self._crew.start()
                plan = make_plan(source, self._rows_per_task())
                save_plan(self._bulk.output, plan)
            sink = Sink(self._bulk.output, plan.source, self._bulk.rows.format, num_rewrites=self._bulk.num_rewrites)
            parts = self._cover(plan, sink)
            grace_seconds = END_SECONDS
        except JobStopped:
            grace_seconds = STOP_SECONDS
            raise
        finally:
            self._clean_up(grace_seconds)
        return self._finish(plan, sink, parts)

    def _delete_leftovers(self) -> None:
        """Delete the queue of an attempt that was killed, also when this one ends before it has a queue of its own."""
        if is_there(self._connection, self._bulk.run):
            broker = Broker(self._connection, self._bulk.run, self._next_generation())
            broker.open(self._bulk.queue)
            broker.close()

    def _load_plan(self, source: Source) -> Plan | None:
        plan = load_plan(self._bulk.output)
        if plan is None:
            return None
        known = plan.source
        if (known.path, known.kind, known.text_column) != (source.path, source.kind, source.text_column):
            raise SourceError(f"input.path = {source.path}: the run began with {known.path}; submit it as a new run")
        known.check_unchanged()
        return plan

    def _rows_per_task(self) -> int:
        queue = self._bulk.queue
        if queue.rows_per_task > queue.max_rows_queued:
            log.warning(
                "queue.rows_per_task %s is above max_rows_queued; tasks have %s rows",
                queue.rows_per_task,
                queue.max_rows_queued,
            )
        return min(queue.rows_per_task, queue.max_rows_queued)

    def _cover(self, plan: Plan, sink: Sink) -> list[Part]:
        """Work, through as many generations as it takes, until committed parts cover the plan."""
        num_rebuilds, rows_before = 0, -1
        while True:
            self._check_stop()
            covered = choose(plan, (part for part in read_parts(sink.folder) if part.file.endswith(f".{sink.kind}")))
            self._progress.begin(plan.num_rows, covered)
            rows = sum(part.num_rows for part in covered)
            num_rebuilds = 0 if rows > rows_before else num_rebuilds + 1
            rows_before = rows
            if num_rebuilds > MAX_REBUILDS:
                raise PoolError(f"Redis lost the queue {num_rebuilds} times without a row done between; see its log")
            parts = self._work_generation(plan, sink, covered)
            if parts is not None:
                check_coverage(plan, parts)
                return parts
            log.warning("Redis lost the queue of %s (generation %s); rebuilding", self._bulk.run, self._generation)

    def _work_generation(self, plan: Plan, sink: Sink, covered: Sequence[Part]) -> list[Part] | None:
        """The parts that cover the plan; None when Redis lost the queue."""
        self._generation = self._next_generation()
        broker = Broker(self._connection, self._bulk.run, self._generation)
        if broker.open(self._bulk.queue) is Answer.STALE:
            raise PoolError(f"run {self._bulk.run} has a later generation than {self._generation}; it was taken over")
        todo = deque(remaining(plan, covered))
        missing = sum(task.num_rows for task in todo)
        log.info("run %s generation %s: %s of %s rows to do", self._bulk.run, self._generation, missing, plan.num_rows)
        if todo:
            self._crew.start()
        opened_at = time.monotonic()
        while True:
            self._check_stop()
            if not self._feed(broker, todo):
                return None
            watched = self._watch(broker)
            if watched is None:
                return None
            self._progress.update(watched)
            if watched.rows_done == missing:
                parts = self._committed(broker, sink, missing)
                return None if parts is None else sorted([*covered, *parts], key=lambda part: part.first_row)
            settled = min(self._connection.healthy_seconds, time.monotonic() - opened_at)
            for worker in self._crew.tend(watched, settled_seconds=settled):
                broker.expire(worker)
            time.sleep(POLL_SECONDS)

    def _feed(self, broker: Broker, todo: deque[Task]) -> bool:
        """Put what the bound allows; False when the queue is lost."""
        while todo:
            batch = [todo[index] for index in range(min(BATCH, len(todo)))]
            taken = broker.put(batch)
            if isinstance(taken, Answer):
                return False
            for _ in range(taken):
                todo.popleft()
            if taken < len(batch):
                break
        return True

    def _watch(self, broker: Broker) -> Watched | None:
        is_due = time.monotonic() - self._extended_at > EXTEND_SECONDS
        watched = broker.watch(extend=is_due)
        if isinstance(watched, Answer):
            return None
        if is_due:
            self._extended_at = time.monotonic()
        if watched.halted is not None:
            stop = Stop.from_json(watched.halted)
            raise (SourceError if stop.is_input else SinkError)(stop.message)
        return watched

    def _committed(self, broker: Broker, sink: Sink, num_rows: int) -> list[Part] | None:
        """The parts that were committed in this generation; None when Redis forgot some meanwhile."""
        committed = broker.committed()
        if sum(last - first + 1 for first, last in committed) != num_rows:
            return None
        parts = []
        for (first, last), delivery in committed.items():
            name = part_name(first, last, broker.generation, delivery, sink.kind)
            part = read_part(sink.folder, sidecar_name(name))
            if part is None:
                raise PoolError(f"the part {name} was committed and isn't whole; check the disk of {sink.folder}")
            parts.append(part)
        return parts

    def _finish(self, plan: Plan, sink: Sink, parts: Sequence[Part]) -> BulkResult:
        plan.source.check_unchanged()
        name = f"{Path(plan.source.path).stem}.detoxified.{sink.kind}" if self._bulk.rows.merge else None
        manifest = write_manifest(self._bulk.output, plan, parts, epoch=self._bulk.epoch, merged=name)
        merged = None
        if name is not None:
            merged = merge(self._bulk.output, name, sink.header(), parts, epoch=self._bulk.epoch)
        delete_others(self._bulk.output, parts, generation=self._generation, epoch=self._bulk.epoch)
        return BulkResult(plan.num_rows, count_rows(parts), manifest, merged, count_candidates(parts))

    def _clean_up(self, grace_seconds: float) -> None:
        """End the workers and delete the keys, without waiting long for either."""
        connection = Connection(self._redis_url, outage_seconds=CLEANUP_SECONDS)
        broker = Broker(connection, self._bulk.run, self._generation)
        try:
            broker.halt(Stop("the run is over", is_fault=False).to_json())
            self._crew.end(grace_seconds)
            broker.close()
        except QueueUnreachable as error:
            log.warning("the keys of %s are left in Redis, the next attempt deletes them: %s", self._bulk.run, error)
        finally:
            self._crew.end(0.0)
            connection.close()
            self._connection.close()

    def _check_stop(self) -> None:
        if self._should_stop():
            raise JobStopped


class Progress:
    """Live figures, reported once a second."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._total = 0
        self._base = 0
        self._base_quarantined = 0
        self._reported_at = 0.0
        self._history: deque[tuple[float, int]] = deque()

    def begin(self, total: int, covered: Sequence[Part]) -> None:
        """A generation begins: what is covered already is done, and not by its speed."""
        self._total = total
        self._base = sum(part.num_rows for part in covered)
        self._base_quarantined = count_rows(covered)[QUARANTINED]
        self._history.clear()
        self._reported_at = 0.0

    def update(self, watched: Watched) -> None:
        """Take the counters of this moment; the first and the last of a run are always reported."""
        now, done = time.monotonic(), self._base + watched.rows_done
        if now - self._reported_at < REPORT_SECONDS and done < self._total:
            return
        self._reported_at = now
        self._history.append((now, done))
        while now - self._history[0][0] > RATE_SECONDS:
            self._history.popleft()
        since, before = self._history[0]
        rate = (done - before) / (now - since) if now > since else 0.0
        figures = {
            "rows_done": float(done),
            "rows_total": float(self._total),
            "rows_quarantined": float(self._base_quarantined + watched.rows_of(QUARANTINED)),
            "tasks_retried": float(watched.counters.get("failures", 0)),
            "rows_per_second": rate,
            "share_done": done / self._total,
        }
        if rate > 0:
            figures["eta_seconds"] = (self._total - done) / rate
        self._report(figures, done)
