"""Moves runs from what is to what was asked: one tick compares the store with the cluster and acts.

Level-triggered: a tick reads everything anew and each action is safe to repeat, so the reconciler may be killed between
any two calls and started again anywhere; no run is lost and no attempt is launched twice. What the launcher says of a
job is a hint that only counts when the attempt's heartbeat has gone silent; the store's record is the truth.

Knows neither Ray nor SQL: it is given a store, a launcher, two clocks and chance.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from cluster.backoff import MAX_SECONDS, retry_seconds
from cluster.pipeline import next_moves, resolve_step, step_specs
from cluster.runs import Cause, Run, State
from cluster.scheduler import Capacity, ask_of, decide
from cluster.store import IllegalTransition, StaleEpoch, Store
from configs.load import SpecError

log = logging.getLogger(__name__)

SILENT_SECONDS = 5.0
"""Without a heartbeat for this long the launcher is asked about the job; drivers beat every second."""
BLIND_SECONDS = 10.0
"""Between two ticks: more than this is a time in which no sign of life could be seen."""
LOST_SECONDS = 60.0
"""A driver that lives but hasn't beaten for this long is ended as lost."""
START_SECONDS = 300.0
"""A launched driver must have reported by then; importing on a loaded machine takes tens of seconds."""
CANCEL_SECONDS = 30.0
"""An attempt that was asked to stop has this long to reach its next task or step."""
UNPLACEABLE_SECONDS = 60.0
"""A run that the whole cluster can't hold waits this long for a node to join."""


class Phase(StrEnum):
    """What the launcher knows of an attempt's job."""

    MISSING = "MISSING"
    """It was never launched, or the cluster that it was launched on is gone."""
    LIVE = "LIVE"
    ENDED = "ENDED"


@dataclass(frozen=True)
class LaunchStatus:
    """A job as the launcher sees it."""

    phase: Phase
    cause: Cause = Cause.ERROR
    """Why it ended, as far as the launcher can tell."""
    message: str = ""
    """The end of its log, or what else explains its end."""


class LaunchError(RuntimeError):
    """The cluster can't be reached or refuses; nothing is known, the next tick tries again."""


class Launcher(Protocol):
    """Starts and ends attempts. Every method may raise ``LaunchError``."""

    def launch(self, run: Run, epoch: int) -> None:
        """Start the driver of one attempt; does nothing when it was launched before."""

    def status(self, run: Run, epoch: int) -> LaunchStatus:
        """What is known of the attempt's job."""

    def stop(self, run: Run, epoch: int) -> None:
        """End the attempt's job; does nothing when there is none."""

    def capacity(self) -> Capacity:
        """The living machines."""


@dataclass
class _Sign:
    """The last change seen in a run, by this process's own clock: clocks of other machines don't matter."""

    seen: tuple[object, ...]
    since: float


class Reconciler:
    """One tick after the other.

    What it remembers between them are only silences, which a restart measures anew; when a run may be tried again is
    in the store.
    """

    def __init__(
        self,
        store: Store,
        launcher: Launcher,
        *,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        chance: Callable[[], float],
    ) -> None:
        self._store = store
        self._launcher = launcher
        self._now = now
        self._monotonic = monotonic
        self._chance = chance
        self._signs: dict[str, _Sign] = {}
        self._looked_at: float | None = None
        """When the last tick that reached the store began."""
        self._cancels: dict[tuple[str, int], float] = {}

    def tick(self) -> None:
        """Compare and act once. A run that can't be helped now doesn't keep the others waiting.

        Raises:
            StoreError: the store is unreachable.
        """
        runs = self._store.unfinished()
        self._excuse_own_silence()
        self._forget(runs)
        for run in runs:
            self._guarded(run, self._reconcile)
        try:
            self._place(self._store.unfinished())
        except LaunchError as error:
            log.warning("nothing is placed: %s", error)

    def _guarded(self, run: Run, act: Callable[[Run], None]) -> None:
        try:
            act(run)
        except (StaleEpoch, IllegalTransition) as error:
            log.info("%s moved meanwhile: %s", run.id, error)
        except LaunchError as error:
            log.warning("%s attempt %s: %s", run.id, run.epoch, error)
        except SpecError as error:
            log.warning("%s has a spec that can't be used", run.id)
            self._store.close_run(run.id, State.FAILED, reason=str(error))

    def _reconcile(self, run: Run) -> None:
        if self._is_late(run):
            self._end_late(run)
        elif run.kind == "pipeline":
            self._reconcile_pipeline(run)
        elif run.state is State.PENDING and run.parent is None:
            self._store.enqueue(run.id)
        elif run.state is State.QUEUED and run.epoch and not self._has_retry_time(run):
            self._postpone(run)
        elif run.state.has_attempt:
            self._watch(run)

    # Pipelines.

    def _reconcile_pipeline(self, run: Run) -> None:
        if run.state is State.PENDING:
            self._store.expand(run.id, step_specs(run))
        steps = {str(step.step): step for step in self._store.list(parent=run.id, limit=10_000)}
        moves = next_moves(self._store.get(run.id), steps)
        for name in moves.cancel:
            self._store.request_cancel(steps[name].id)
        for name in moves.ready:
            self._guarded(steps[name], lambda step: self._enqueue_step(step, steps))
        if moves.outcome is not None:
            log.info("%s %s", run.id, moves.outcome)
            self._store.close_run(run.id, moves.outcome, reason=moves.reason)

    def _enqueue_step(self, step: Run, steps: Mapping[str, Run]) -> None:
        missing: list[str] = []

        def lookup(name: str, output: str) -> str:
            paths = {item.name: item.path for item in self._store.artifacts(steps[name].id)}
            if output not in paths:
                made = ", ".join(sorted(paths)) or "nothing"
                missing.append(f"step {name} made no {output} (it made {made}); ask for it in that step's spec")
            return paths.get(output, "missing")

        spec = resolve_step(step, lookup)
        if missing:
            self._store.close_run(step.id, State.FAILED, reason="; ".join(missing))
        else:
            self._store.enqueue(step.id, spec)

    # Attempts.

    def _watch(self, run: Run) -> None:
        silent = self._silence(run)
        if run.cancel_requested and self._cancel_age(run) > CANCEL_SECONDS:
            self._launcher.stop(run, run.epoch)
            self._store.close_run(run.id, State.CANCELLED, reason="cancelled on request; it was ended by force")
            return
        if silent < SILENT_SECONDS:
            return
        status = self._launcher.status(run, run.epoch)
        if status.phase is Phase.MISSING and run.state is State.STARTING:
            self._launch(run, run.epoch)
        elif status.phase is Phase.MISSING:
            self._end_attempt(run, Cause.LOST, "the cluster that it ran on is gone")
        elif status.phase is Phase.ENDED:
            self._end_attempt(run, status.cause, status.message or "its driver ended without a word")
        elif silent > (START_SECONDS if run.state is State.STARTING else LOST_SECONDS):
            if self._store.get(run.id).heartbeat_at != run.heartbeat_at:
                return  # It beat while another run held up this tick.
            self._launcher.stop(run, run.epoch)
            self._end_attempt(run, Cause.LOST, f"no sign of life for {silent:.0f} s")

    def _end_attempt(self, run: Run, cause: Cause, reason: str) -> None:
        after = self._store.end_attempt(run.id, run.epoch, cause, reason)
        log.warning("%s attempt %s ended (%s): now %s", run.id, run.epoch, cause, after)

    def _launch(self, run: Run, epoch: int) -> None:
        # The sign is renewed first: a launch that fails is tried again after the same silence.
        self._signs.pop(run.id, None)
        self._launcher.launch(run, epoch)
        log.info("%s attempt %s launched", run.id, epoch)

    # Placement.

    def _place(self, runs: Sequence[Run]) -> None:
        # A run that isn't to be tried again yet keeps nobody waiting.
        queued = [run for run in runs if run.state is State.QUEUED and self._may_begin(run)]
        if not queued:
            return
        load = [ask_of(run.spec) for run in runs if run.state.has_attempt and run.kind != "pipeline"]
        decision = decide([(run.id, ask_of(run.spec)) for run in queued], load, self._launcher.capacity())
        for run in queued:
            if run.id in decision.start:
                self._guarded(run, self._begin)
            elif run.id in decision.impossible and self._silence(run) > UNPLACEABLE_SECONDS:
                self._store.close_run(run.id, State.FAILED, reason=decision.waiting[run.id])
            elif run.reason is None:
                # Only where nothing is said yet: what an earlier attempt died of is worth more.
                self._store.explain(run.id, decision.waiting[run.id])

    def _begin(self, run: Run) -> None:
        epoch = self._store.begin_attempt(run.id)
        self._launch(run, epoch)

    # Retries.

    def _postpone(self, run: Run) -> None:
        seconds = retry_seconds(max(1, run.errors + run.lost), self._chance)
        self._store.postpone(run.id, self._now() + timedelta(seconds=seconds))
        log.info("%s attempt %s begins in %.1f s", run.id, run.epoch + 1, seconds)

    def _has_retry_time(self, run: Run) -> bool:
        """Whether a time was drawn; one that no draw could have given comes from a clock that was wrong."""
        return run.retry_at is not None and run.retry_at - self._now() <= timedelta(seconds=MAX_SECONDS)

    def _may_begin(self, run: Run) -> bool:
        return not run.epoch or (run.retry_at is not None and run.retry_at <= self._now())

    # Deadlines and waiting times.

    def _is_late(self, run: Run) -> bool:
        deadline = run.spec.get("deadline_seconds")
        return deadline is not None and (self._now() - run.created_at).total_seconds() > float(deadline)

    def _end_late(self, run: Run) -> None:
        reason = f"its deadline of {run.spec['deadline_seconds']:g} s is over"
        if run.kind == "pipeline":
            for step in self._store.list(parent=run.id, limit=10_000):
                if not step.state.is_terminal:
                    self._store.request_cancel(step.id)
        elif run.state.has_attempt:
            self._launcher.stop(run, run.epoch)
        self._store.close_run(run.id, State.FAILED, reason=reason)

    def _excuse_own_silence(self) -> None:
        """Begin all silences anew after a time in which nobody could look: the store was away, or a call hung."""
        now = self._monotonic()
        if self._looked_at is not None and now - self._looked_at > BLIND_SECONDS:
            log.warning("nothing was seen for %.0f s: every run gets its full time again", now - self._looked_at)
            self._signs.clear()
        self._looked_at = now

    def _silence(self, run: Run) -> float:
        """Seconds since the run was last seen to change, by this process's clock."""
        seen = (run.epoch, run.state, run.heartbeat_at)
        sign = self._signs.get(run.id)
        if sign is None or sign.seen != seen:
            sign = self._signs[run.id] = _Sign(seen, self._monotonic())
        return self._monotonic() - sign.since

    def _cancel_age(self, run: Run) -> float:
        return self._monotonic() - self._cancels.setdefault((run.id, run.epoch), self._monotonic())

    def _forget(self, runs: Sequence[Run]) -> None:
        alive = {run.id for run in runs}
        self._signs = {key: sign for key, sign in self._signs.items() if key in alive}
        self._cancels = {key: since for key, since in self._cancels.items() if key[0] in alive}
