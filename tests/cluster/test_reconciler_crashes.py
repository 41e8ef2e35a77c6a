"""The reconciler killed at any of its calls, and started again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cluster.database import Database
from cluster.reconciler import SILENT_SECONDS
from cluster.runs import State
from cluster.scheduler import Node
from cluster.store import Store
from tests.cluster import fakes, specs
from tests.cluster.conftest import Clock
from tests.cluster.fakes import CrashPoint
from tests.cluster.world import World


def play(store: Store, clock: Clock, point: CrashPoint) -> tuple[World, dict[str, str]]:
    """A pipeline, a run that fails once, one that is cancelled while it works, and one that is lost; to their ends."""
    # Few and long ticks, but shorter than a silence: living drivers beat at every tick.
    world = World(store, clock, point, tick_seconds=0.8 * SILENT_SECONDS)
    runs = {
        "pipeline": store.submit(specs.pipeline(), owner="local").id,
        "flaky": world.submit(fakes.fail, fakes.succeed),
        "dead": world.submit(fakes.die, fakes.die, retries={"errors": 1}),
        "cancelled": world.submit(fakes.ignore_stop),
        "hung": world.submit(fakes.hang, fakes.succeed),
    }
    world.cluster.nodes = (Node(8),)
    world.run_until(lambda: world.state(runs["cancelled"]) is State.RUNNING)
    store.request_cancel(runs["cancelled"])
    world.finish()
    return world, runs


def check(world: World, runs: dict[str, str]) -> None:
    """Each run ended once and rightly, and no attempt was launched twice or in vain."""
    states = {name: world.state(run_id) for name, run_id in runs.items()}
    expected = dict.fromkeys(runs, State.SUCCEEDED) | {"dead": State.FAILED, "cancelled": State.CANCELLED}
    assert states == expected
    epochs = {name: world.store.get(run_id).epoch for name, run_id in runs.items()}
    assert epochs == {"pipeline": 0, "flaky": 2, "dead": 2, "cancelled": 1, "hung": 2}
    steps = world.steps(runs["pipeline"])
    assert sorted(steps) == ["data", "other", "student", "teacher"]
    assert {step.epoch for step in steps.values()} == {1}
    assert len(world.cluster.launches) == len(set(world.cluster.launches)) == 4 + 2 + 2 + 1 + 2
    assert not world.cluster.living
    for run in world.store.list():
        ends = [event.state for event in world.store.events(run.id) if event.state.is_terminal]
        assert ends == [run.state]


def fresh_store(template: Path, name: str, clock: Clock) -> Store:
    """A store of its own; copying a migrated file takes a tenth of a migration."""
    file = template.with_name(f"{name}.sqlite")
    shutil.copy(template, file)
    return Store(Database.open(f"sqlite:///{file}", migrate=False), clock=clock.now)


# A call is nearly the same place after its effect as before the next one's; the quick test tries every fourth place.
@pytest.mark.parametrize(
    ("after_effect", "stride"),
    [(True, 4), pytest.param(True, 1, marks=pytest.mark.soak), pytest.param(False, 1, marks=pytest.mark.soak)],
)
def test_a_coordinator_killed_at_any_call_loses_nothing_and_does_nothing_twice(
    tmp_path: Path, after_effect: bool, stride: int
) -> None:
    template = tmp_path / "template.sqlite"
    Store.open(f"sqlite:///{template}", migrate=True).close()
    counting = CrashPoint(None, after_effect=False)
    clock = Clock()
    store = fresh_store(template, "whole", clock)
    check(*play(store, clock, counting))
    store.close()
    expected = {"expand", "enqueue", "postpone", "begin_attempt", "end_attempt", "close_run", "launch", "stop"}
    assert set(counting.calls) >= expected
    for at in range(0, len(counting.calls), stride):
        clock = Clock()
        store = fresh_store(template, str(at), clock)
        world, runs = play(store, clock, CrashPoint(at, after_effect=after_effect))
        assert world.crashes == 1
        check(world, runs)
        store.close()
