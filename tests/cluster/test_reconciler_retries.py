"""The reconciler tries failed and lost runs again: as often as their budgets say, and not before their time."""

from __future__ import annotations

from datetime import timedelta

import pytest

from cluster.backoff import BASE_SECONDS, MAX_SECONDS
from cluster.runs import Cause, State
from cluster.scheduler import Node
from cluster.store import Store
from tests.cluster import fakes
from tests.cluster.conftest import Clock
from tests.cluster.world import World


@pytest.fixture
def world(sqlite_store: Store, clock: Clock) -> World:
    return World(sqlite_store, clock, tick_seconds=0.25)


def lose(store: Store, run_id: str, epoch: int) -> bool:
    """Start, and be lost with the node."""
    store.start(run_id, epoch)
    store.end_attempt(run_id, epoch, Cause.LOST, "node gone")
    return True


def refuse(store: Store, run_id: str, epoch: int) -> bool:
    """Start, and find the input wrong."""
    store.start(run_id, epoch)
    store.end_attempt(run_id, epoch, Cause.WRONG_INPUT, "no such column")
    return True


def seconds_before_attempt(world: World, run_id: str, epoch: int) -> float:
    """Between the failure of the attempt before and the begin of this one."""
    at = {(event.epoch, event.state): event.at for event in world.store.events(run_id)}
    return (at[epoch, State.STARTING] - at[epoch - 1, State.QUEUED]).total_seconds()


@pytest.mark.parametrize("lost_nodes", [0, 1, 3])
@pytest.mark.parametrize("errors", [0, 1, 3])
def test_a_run_is_tried_as_often_as_each_budget_says(world: World, errors: int, lost_nodes: int) -> None:
    budgets = {"errors": errors, "lost_nodes": lost_nodes}
    failing = world.submit(fakes.fail, retries=budgets)
    losing = world.submit(lose, retries=budgets)
    world.run_until(lambda: not world.store.unfinished(), ticks=2_000)
    runs = [world.store.get(run_id) for run_id in (failing, losing)]
    assert [run.state for run in runs] == [State.FAILED, State.FAILED]
    assert [(run.epoch, run.errors, run.lost) for run in runs] == [
        (errors + 1, errors + 1, 0),
        (lost_nodes + 1, 0, lost_nodes + 1),
    ]


def test_one_budget_pays_for_nothing_of_the_other(world: World) -> None:
    run_id = world.submit(lose, fakes.fail, lose, fakes.fail, retries={"errors": 1, "lost_nodes": 2})
    world.finish()
    run = world.store.get(run_id)
    assert (run.state, run.epoch, run.errors, run.lost) == (State.FAILED, 4, 2, 2)
    saved = world.submit(lose, fakes.fail, lose, fakes.succeed, retries={"errors": 1, "lost_nodes": 2})
    world.finish()
    assert world.state(saved) is State.SUCCEEDED


def test_wrong_input_is_never_tried_again(world: World) -> None:
    run_id = world.submit(refuse, retries={"errors": 9, "lost_nodes": 9})
    world.finish()
    assert (world.state(run_id), world.store.get(run_id).epoch) == (State.FAILED, 1)


def test_each_failure_doubles_the_wait_whichever_budget_it_was(world: World) -> None:
    world.chance = lambda: 1.0
    run_id = world.submit(fakes.fail, lose, fakes.fail, fakes.succeed, retries={"errors": 2, "lost_nodes": 1})
    world.finish()
    waits = [seconds_before_attempt(world, run_id, epoch) for epoch in (2, 3, 4)]
    for wait, doublings in zip(waits, (1, 2, 4), strict=True):
        # A tick sees the failure, and a tick the end of the wait.
        assert doublings * BASE_SECONDS <= wait <= doublings * BASE_SECONDS + 0.6


def test_chance_may_say_at_once(world: World) -> None:
    world.chance = lambda: 0.0
    run_id = world.submit(fakes.fail, fakes.succeed)
    world.finish()
    assert seconds_before_attempt(world, run_id, 2) <= 0.6


def test_a_restart_keeps_the_time_that_was_drawn(world: World) -> None:
    world.chance = lambda: 1.0
    run_id = world.submit(fakes.fail, fakes.succeed, retries={"errors": 1})
    world.run_until(lambda: world.store.get(run_id).retry_at is not None)
    drawn = world.store.get(run_id).retry_at
    assert drawn is not None
    world.chance = lambda: 0.0
    while world.store.get(run_id).epoch == 1:
        world.restart()
        assert world.store.get(run_id).retry_at == drawn
        assert world.cluster.launches == [f"{run_id}-a1"]
        world.tick()
    begun = next(event.at for event in world.store.events(run_id) if (event.epoch, event.state) == (2, State.STARTING))
    assert timedelta() <= begun - drawn <= timedelta(seconds=0.3)
    assert world.store.get(run_id).retry_at is None


def test_a_waiting_run_keeps_nobody_else_waiting(world: World) -> None:
    world.cluster.nodes = (Node(1),)
    world.chance = lambda: 1.0
    first = world.submit(fakes.fail, fakes.succeed)
    second = world.submit(fakes.succeed)
    world.run_until(lambda: world.state(second) is State.SUCCEEDED)
    waiting = world.store.get(first)
    assert (waiting.state, waiting.reason) == (State.QUEUED, "RuntimeError: boom")
    world.finish()
    assert world.state(first) is State.SUCCEEDED


def test_a_waiting_run_can_be_cancelled_and_has_its_deadline(world: World) -> None:
    world.chance = lambda: 1.0
    cancelled = world.submit(fakes.fail)
    late = world.submit(fakes.fail, fakes.fail, fakes.fail, retries={"errors": 9}, deadline_seconds=3.0)
    world.run_until(lambda: all(world.store.get(run_id).retry_at for run_id in (cancelled, late)))
    assert world.store.request_cancel(cancelled).state is State.CANCELLED
    world.finish()
    assert world.store.get(cancelled).epoch == 1
    assert world.store.get(late).reason == "its deadline of 3 s is over"


def test_a_time_that_no_draw_could_give_is_drawn_anew(world: World) -> None:
    run_id = world.submit(fakes.fail, fakes.succeed)
    world.run_until(lambda: world.store.get(run_id).retry_at is not None)
    wrong = world.clock.now() + timedelta(seconds=MAX_SECONDS + 60)
    world.store.postpone(run_id, wrong)
    world.finish()
    assert world.state(run_id) is State.SUCCEEDED


def test_postponing_changes_only_a_run_that_is_queued(world: World) -> None:
    run_id = world.submit(fakes.work)
    world.run_until(lambda: world.state(run_id) is State.RUNNING)
    before = world.store.get(run_id)
    world.store.postpone(run_id, world.clock.now())
    assert world.store.get(run_id) == before
