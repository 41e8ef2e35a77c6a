"""The results store: the record of truth for runs, their metrics and artifacts, and the API's keys.

Guarantee: every method is one transaction. A write of an attempt names its epoch and changes nothing once another
attempt was begun or the run has ended (``StaleEpoch``); a move that ``cluster.runs.TRANSITIONS`` doesn't know is
refused. So any number of submitters, drivers and coordinators may write side by side, be killed anywhere and try again.

It neither decides what runs when nor knows Ray.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from cluster import results
from cluster.database import StoreError
from cluster.keys import ApiKey
from cluster.records import ACTIVE, Records, RunNotFound
from cluster.results import Artifact, Event, Point
from cluster.rows import clean, finite, new_row, one_line, read_run
from cluster.runs import TRANSITIONS, Cause, Directive, Run, State, state_after
from cluster.tables import runs
from configs.load import dump_spec
from configs.schema.kinds import AnySpec
from jobs.context import JobResult

__all__ = [
    "ApiKey",
    "Artifact",
    "Event",
    "IllegalTransition",
    "Point",
    "RunNotFound",
    "StaleEpoch",
    "Store",
    "StoreError",
]


CANCELLED_REASON = "cancelled on request"
_NOTHING_YET: dict[str, Any] = {"heartbeat_at": None, "progress": {}, "retry_at": None}
"""What a new attempt begins with."""


class StaleEpoch(RuntimeError):  # noqa: N818 (a fence, not a failure of ours)
    """The writer is not the run's current attempt, or the run has ended: nothing was changed."""


class IllegalTransition(RuntimeError):  # noqa: N818
    """The move is not in the table of legal transitions: nothing was changed."""


class Store(Records):
    """An opened results store, to be read and changed. Safe for threads; each process opens its own."""

    # What users do.

    def submit(self, spec: AnySpec, *, owner: str, submission_id: str | None = None) -> Run:
        """Record a spec as a PENDING run.

        Idempotent: with a ``submission_id`` that the owner used before, the first run is returned, whatever the spec.
        """
        now = self._clock()
        values = new_row(spec, owner=owner, now=now) | {"submission_id": clean(submission_id)}
        with self._database.write() as connection:
            statement = _insert(connection).values(**values).returning(runs.c.id)
            inserted = connection.execute(
                statement.on_conflict_do_nothing(index_elements=["owner", "submission_id"])
            ).scalar()
            if inserted is None:
                query = select(runs).where(runs.c.owner == owner, runs.c.submission_id == values["submission_id"])
                return read_run(connection.execute(query).one())
            run = self._read(connection, values["id"])
            self._say(connection, run, State.PENDING, "submitted")
            return run

    def request_cancel(self, run_id: str) -> Run:
        """Ask a run to end: at once where nothing runs yet, else at its next task or step; a pipeline with its steps.

        Idempotent; a run that has ended stays as it is.

        Raises:
            RunNotFound: no such run.
        """
        with self._database.write() as connection:
            run = self._lock(connection, run_id)
            if not run.state.is_terminal:
                self._cancel(connection, run)
                for row in connection.execute(
                    select(runs).where(runs.c.parent == run_id, runs.c.state.in_(ACTIVE)).with_for_update()
                ).all():
                    self._cancel(connection, read_run(row))
            return self._read(connection, run_id)

    # What the coordinator does.

    def expand(self, run_id: str, steps: Mapping[str, AnySpec]) -> list[Run]:
        """Make the runs of a pipeline's steps, in their order, and start it; does nothing when they exist.

        Raises:
            IllegalTransition: the pipeline has ended.
        """
        with self._database.write() as connection:
            run = self._lock(connection, run_id)
            if run.state is State.PENDING:
                now = self._clock()
                for offset, (step, spec) in enumerate(steps.items(), start=1):
                    values = new_row(spec, owner=run.owner, now=now, offset=offset) | {"parent": run_id, "step": step}
                    connection.execute(insert(runs).values(**values))
                    self._say(
                        connection, self._read(connection, values["id"]), State.PENDING, f"step {step} of {run_id}"
                    )
                self._move(connection, run, State.RUNNING, started_at=now)
            elif run.state is not State.RUNNING:
                raise IllegalTransition(f"{run_id} is {run.state}; its steps can't be made")
            return [read_run(row) for row in connection.execute(select(runs).where(runs.c.parent == run_id))]

    def enqueue(self, run_id: str, spec: AnySpec | None = None) -> Run:
        """PENDING → QUEUED, with the spec whose references are resolved; nothing happens when it isn't PENDING."""
        with self._database.write() as connection:
            run = self._lock(connection, run_id)
            if run.state is State.PENDING:
                self._move(connection, run, State.QUEUED, **({"spec": dump_spec(spec)} if spec is not None else {}))
            return self._read(connection, run_id)

    def explain(self, run_id: str, reason: str | None) -> None:
        """Say what a QUEUED run waits for; nothing happens when it isn't QUEUED."""
        with self._database.write() as connection:
            run = self._lock(connection, run_id)
            if run.state is State.QUEUED and run.reason != one_line(reason):
                connection.execute(update(runs).where(runs.c.id == run_id).values(reason=one_line(reason)))

    def postpone(self, run_id: str, until: datetime) -> None:
        """Let no attempt of a QUEUED run begin before ``until``; nothing happens when it isn't QUEUED."""
        with self._database.write() as connection:
            waiting = update(runs).where(runs.c.id == run_id, runs.c.state == str(State.QUEUED))
            connection.execute(waiting.values(retry_at=until))

    def close_run(self, run_id: str, state: State, *, reason: str | None = None) -> Run:
        """End a run on the coordinator's word, whatever attempt it has; nothing happens when it has ended.

        Raises:
            IllegalTransition: ``state`` can't follow.
        """
        with self._database.write() as connection:
            run = self._lock(connection, run_id)
            if not run.state.is_terminal:
                self._move(connection, run, state, reason=reason, finished_at=self._clock())
            return self._read(connection, run_id)

    def begin_attempt(self, run_id: str) -> int:
        """QUEUED → STARTING; the number of the new attempt, which fences off all earlier ones.

        Raises:
            IllegalTransition: the run is not QUEUED.
        """
        with self._database.write() as connection:
            run = self._lock(connection, run_id)
            epoch = run.epoch + 1
            self._move(connection, run, State.STARTING, epoch=epoch, reason=None, **_NOTHING_YET)
            return epoch

    def end_attempt(self, run_id: str, epoch: int, cause: Cause, reason: str) -> State:
        """An attempt ended without success: back to QUEUED with budget left, else the run has FAILED.

        Called by whoever sees it first, the driver or the coordinator.

        Raises:
            StaleEpoch: the attempt's end is recorded already.
        """
        with self._database.write() as connection:
            run = self._lock_attempt(connection, run_id, epoch)
            after = state_after(run, cause)
            reason = CANCELLED_REASON if after is State.CANCELLED else reason
            counted = {"errors": run.errors + (cause is not Cause.LOST), "lost": run.lost + (cause is Cause.LOST)}
            ended = {"finished_at": self._clock()} if after.is_terminal else {}
            self._move(connection, run, after, reason=reason, **counted, **ended)
            return after

    # What an attempt does.

    def start(self, run_id: str, epoch: int) -> None:
        """STARTING → RUNNING, for one driver only: a second one of the same attempt is stale.

        Raises:
            StaleEpoch: a driver has started this attempt, another attempt was begun, or the run has ended.
        """
        with self._database.write() as connection:
            run = self._lock_attempt(connection, run_id, epoch)
            if run.state is not State.STARTING:
                raise StaleEpoch(f"attempt {epoch} of {run_id} was started by another driver")
            now = self._clock()
            self._move(connection, run, State.RUNNING, started_at=run.started_at or now, heartbeat_at=now)

    def heartbeat(self, run_id: str, epoch: int, progress: Mapping[str, Any] | None = None) -> Directive:
        """Note a sign of life, and what is to be shown of the work; say whether to stop.

        Raises:
            StaleEpoch: another attempt was begun, or the run has ended: the attempt must end itself.
        """
        with self._database.write() as connection:
            run = self._lock_attempt(connection, run_id, epoch)
            values: dict[str, Any] = {"heartbeat_at": self._clock()}
            if progress is not None:
                values["progress"] = finite(progress)
            connection.execute(update(runs).where(runs.c.id == run_id).values(**values))
            return Directive.STOP if run.cancel_requested else Directive.CONTINUE

    def next_generation(self, run_id: str, epoch: int) -> int:
        """A number higher than every one given for this run before: the generation of its next queue.

        Raises:
            StaleEpoch: another attempt was begun, or the run has ended.
        """
        with self._database.write() as connection:
            self._lock_attempt(connection, run_id, epoch)
            connection.execute(update(runs).where(runs.c.id == run_id).values(generation=runs.c.generation + 1))
            return int(connection.execute(select(runs.c.generation).where(runs.c.id == run_id)).scalar_one())

    def add_points(
        self, run_id: str, epoch: int, points: Sequence[Point], progress: Mapping[str, Any] | None = None
    ) -> Directive:
        """Keep live metrics, and what is to be shown of the work; idempotent, and no sign of the driver's life.

        Raises:
            StaleEpoch: another attempt was begun, or the run has ended.
        """
        with self._database.write() as connection:
            run = self._lock_attempt(connection, run_id, epoch)
            results.add_points(connection, run_id, epoch, points)
            if progress is not None:
                connection.execute(update(runs).where(runs.c.id == run_id).values(progress=finite(progress)))
            return Directive.STOP if run.cancel_requested else Directive.CONTINUE

    def finish(
        self,
        run_id: str,
        epoch: int,
        state: State,
        *,
        reason: str | None = None,
        result: JobResult | None = None,
        output: str | None = None,
    ) -> None:
        """End the run with this attempt: state, figures, artifacts and output in one transaction.

        Idempotent: finishing again with the same epoch and state changes nothing.

        Raises:
            StaleEpoch: another attempt was begun, or the run has ended otherwise.
            IllegalTransition: ``state`` can't follow, as SUCCEEDED before ``start``.
        """
        with self._database.write() as connection:
            run = self._lock(connection, run_id)
            if run.epoch == epoch and run.state is state and state.is_terminal:
                return
            _check_attempt(run, epoch)
            if result is not None:
                results.replace_result(connection, run_id, result)
            self._move(connection, run, state, reason=reason, finished_at=self._clock(), output=output)

    # Inside a transaction.

    def _lock(self, connection: Connection, run_id: str) -> Run:
        """The run, which nobody else changes until the transaction ends."""
        row = connection.execute(select(runs).where(runs.c.id == run_id).with_for_update()).one_or_none()
        if row is None:
            raise RunNotFound(run_id)
        return read_run(row)

    def _lock_attempt(self, connection: Connection, run_id: str, epoch: int) -> Run:
        run = self._lock(connection, run_id)
        _check_attempt(run, epoch)
        return run

    def _move(self, connection: Connection, run: Run, state: State, **values: Any) -> None:
        """Change the state; ``values`` are further columns."""
        if state not in TRANSITIONS[run.state]:
            raise IllegalTransition(f"{run.id} is {run.state}; {state} can't follow")
        reason = one_line(values.pop("reason", None))
        changed = {**values, "state": str(state), "state_at": self._clock(), "reason": reason}
        connection.execute(update(runs).where(runs.c.id == run.id).values(**changed))
        self._say(connection, run, state, reason, epoch=values.get("epoch"))

    def _cancel(self, connection: Connection, run: Run) -> None:
        connection.execute(update(runs).where(runs.c.id == run.id).values(cancel_requested=True))
        if run.state in (State.PENDING, State.QUEUED):
            self._move(connection, run, State.CANCELLED, reason=CANCELLED_REASON, finished_at=self._clock())
        elif not run.cancel_requested:
            self._say(connection, run, run.state, "cancel requested")

    def _say(
        self, connection: Connection, run: Run, state: State, message: str | None, *, epoch: int | None = None
    ) -> None:
        number = run.epoch if epoch is None else epoch
        results.add_event(connection, run.id, at=self._clock(), epoch=number, state=state, message=message)


def _check_attempt(run: Run, epoch: int) -> None:
    if run.epoch != epoch or not run.state.has_attempt:
        raise StaleEpoch(f"attempt {epoch} of {run.id} may not write: the run is {run.state} at attempt {run.epoch}")


def _insert(connection: Connection) -> Any:
    """An INSERT that knows ON CONFLICT, which each dialect spells in a class of its own."""
    return (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(runs)
