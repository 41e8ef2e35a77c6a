"""A store, a cluster made by hand and a reconciler that share a clock."""

from __future__ import annotations

from collections.abc import Callable

from cluster.reconciler import Reconciler
from cluster.runs import Run, State
from cluster.store import Store
from tests.cluster import fakes, specs
from tests.cluster.conftest import Clock
from tests.cluster.fakes import Crash, CrashPoint, FakeCluster


class World:
    """A store, a cluster and a reconciler that share a clock."""

    def __init__(
        self, store: Store, clock: Clock, point: CrashPoint | None = None, *, tick_seconds: float = 1.0
    ) -> None:
        self.store, self.clock, self._tick_seconds = store, clock, tick_seconds
        self.cluster = FakeCluster(store)
        self._point = point
        self.chance: Callable[[], float] = lambda: 0.5
        """What a retry's wait is drawn with."""
        self.crashes = 0
        self.restart()

    def restart(self) -> None:
        """A new reconciler that knows only what the store knows."""
        store, launcher = self.store, self.cluster
        if self._point is not None:
            store, launcher = self._point.wrap(store), self._point.wrap(launcher)
        self.reconciler = Reconciler(
            store,
            launcher,
            now=self.clock.now,
            monotonic=self.clock.monotonic,
            chance=lambda: self.chance(),  # a test may change it meanwhile
        )

    def tick(self) -> None:
        try:
            self.reconciler.tick()
        except Crash:
            self.crashes += 1
            self.restart()
        self.cluster.beat()
        self.clock.advance(self._tick_seconds)

    def run_until(self, is_over: Callable[[], bool], *, ticks: int = 200) -> None:
        for _ in range(ticks):
            if is_over():
                return
            self.tick()
        raise AssertionError([(run.step or run.id, run.state, run.reason) for run in self.store.list()])

    def finish(self) -> None:
        self.run_until(lambda: not self.store.unfinished())

    def submit(self, *told: fakes.Behaviour, **values: object) -> str:
        run_id = self.store.submit(specs.prepare(**values), owner="local").id
        self.cluster.behaviours[run_id] = list(told)
        return run_id

    def state(self, run_id: str) -> State:
        return self.store.get(run_id).state

    def steps(self, run_id: str) -> dict[str, Run]:
        return {str(run.step): run for run in self.store.list(parent=run_id)}
