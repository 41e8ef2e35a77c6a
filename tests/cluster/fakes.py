"""A cluster made by hand: drivers that do what a test says, and a proxy that crashes its caller at a chosen call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cluster.reconciler import LaunchError, LaunchStatus, Phase
from cluster.runs import Cause, Directive, Run, State, job_id
from cluster.scheduler import Capacity, Node
from cluster.store import StaleEpoch, Store
from configs.schema.references import OUTPUTS
from jobs.context import JobResult

Behaviour = Callable[[Store, str, int], bool]
"""One beat of a driver: given store, run and epoch; True when the driver's process ends with it."""


def succeed(store: Store, run_id: str, epoch: int) -> bool:
    run = store.get(run_id)
    if run.state is State.STARTING:
        store.start(run_id, epoch)
        return False
    if store.heartbeat(run_id, epoch, {"step": 1}) is Directive.STOP:
        store.end_attempt(run_id, epoch, Cause.LOST, "stopped")
        return True
    names = OUTPUTS[run.kind]
    store.finish(run_id, epoch, State.SUCCEEDED, result=JobResult({n: n for n in names}), output=f"/out/{run_id}")
    return True


def fail(store: Store, run_id: str, epoch: int) -> bool:
    store.start(run_id, epoch)
    store.end_attempt(run_id, epoch, Cause.ERROR, "RuntimeError: boom")
    return True


def die(store: Store, run_id: str, epoch: int) -> bool:
    """Start and end without a word."""
    store.start(run_id, epoch)
    return True


def work(store: Store, run_id: str, epoch: int) -> bool:
    """Work for ever, and heed a stop."""
    if store.get(run_id).state is State.STARTING:
        store.start(run_id, epoch)
    if store.heartbeat(run_id, epoch) is Directive.STOP:
        store.end_attempt(run_id, epoch, Cause.LOST, "stopped")
        return True
    return False


def ignore_stop(store: Store, run_id: str, epoch: int) -> bool:
    if store.get(run_id).state is State.STARTING:
        store.start(run_id, epoch)
    store.heartbeat(run_id, epoch)
    return False


def hang(store: Store, run_id: str, epoch: int) -> bool:
    """Start, and give no sign of life again."""
    if store.get(run_id).state is State.STARTING:
        store.start(run_id, epoch)
    return False


def never_start(store: Store, run_id: str, epoch: int) -> bool:
    return False


@dataclass
class FakeCluster:
    """The launcher, and the drivers that it launched."""

    store: Store
    nodes: tuple[Node, ...] = (Node(2),)
    behaviours: dict[str, list[Behaviour]] = field(default_factory=dict)
    """Run → what its first, second, … attempt does; ``succeed`` when nothing is said."""
    last_words: str = "OSError: disk full"
    lost: bool = False
    """Whether ended jobs count as lost with their node."""
    unreachable: bool = False
    launches: list[str] = field(default_factory=list)
    stops: list[str] = field(default_factory=list)
    living: dict[str, tuple[str, int]] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    most_cpus: int = 0

    def launch(self, run: Run, epoch: int) -> None:
        self._answer()
        name = job_id(run.id, epoch)
        if name in self.living or name in self.ended:
            return
        self.launches.append(name)
        self.living[name] = (run.id, epoch)

    def status(self, run: Run, epoch: int) -> LaunchStatus:
        self._answer()
        name = job_id(run.id, epoch)
        if name in self.living:
            return LaunchStatus(Phase.LIVE)
        if name in self.ended:
            return LaunchStatus(Phase.ENDED, Cause.LOST if self.lost else Cause.ERROR, self.last_words)
        return LaunchStatus(Phase.MISSING)

    def stop(self, run: Run, epoch: int) -> None:
        self._answer()
        name = job_id(run.id, epoch)
        self.stops.append(name)
        if self.living.pop(name, None) is not None:
            self.ended.add(name)

    def capacity(self) -> Capacity:
        self._answer()
        return Capacity(self.nodes)

    def beat(self) -> None:
        """Let every living driver do its next thing; one that is fenced off ends."""
        for name, (run_id, epoch) in list(self.living.items()):
            told = self.behaviours.get(run_id, [])
            act = told[min(epoch, len(told)) - 1] if told else succeed
            try:
                is_over = act(self.store, run_id, epoch)
            except StaleEpoch:
                is_over = True
            if is_over:
                del self.living[name]
                self.ended.add(name)

    def vanish(self) -> None:
        """The whole cluster goes away with its drivers and all that it knew."""
        self.living.clear()
        self.ended.clear()

    def _answer(self) -> None:
        if self.unreachable:
            raise LaunchError("no answer")


class Crash(BaseException):
    """The coordinator's process was killed: nothing of it runs on, nothing handles this."""


class CrashPoint:
    """Counts the calls that change something and kills the caller at one of them, before or after its effect."""

    CHANGES = frozenset(
        {
            "expand",
            "enqueue",
            "postpone",
            "explain",
            "close_run",
            "begin_attempt",
            "end_attempt",
            "request_cancel",
            "launch",
            "stop",
        }
    )

    def __init__(self, at: int | None, *, after_effect: bool) -> None:
        self.at, self.after_effect = at, after_effect
        self.calls: list[str] = []

    def wrap(self, target: Any) -> Any:
        point = self

        class Wrapped:
            def __getattr__(self, name: str) -> Any:
                attribute = getattr(target, name)
                return point._watched(name, attribute) if name in CrashPoint.CHANGES else attribute

        return Wrapped()

    def _watched(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            is_here = len(self.calls) == self.at
            self.calls.append(name)
            if is_here and not self.after_effect:
                raise Crash
            result = call(*args, **kwargs)
            if is_here:
                raise Crash
            return result

        return watched
