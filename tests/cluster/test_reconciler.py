"""The reconciler places runs, and ends them on request, at their deadline, or when the cluster can't hold them."""

from __future__ import annotations

import pytest

from cluster.reconciler import CANCEL_SECONDS
from cluster.runs import State
from cluster.scheduler import Node
from cluster.store import Store
from tests.cluster import fakes
from tests.cluster.conftest import Clock
from tests.cluster.world import World


@pytest.fixture
def world(sqlite_store: Store, clock: Clock) -> World:
    return World(sqlite_store, clock)


def test_a_run_is_queued_placed_launched_once_and_finished(world: World) -> None:
    run_id = world.submit()
    world.finish()
    run = world.store.get(run_id)
    assert (run.state, run.epoch) == (State.SUCCEEDED, 1)
    assert world.cluster.launches == [f"{run_id}-a1"]


def test_a_running_attempt_that_heeds_no_stop_is_ended_by_force(world: World) -> None:
    run_id = world.submit(fakes.ignore_stop)
    world.run_until(lambda: world.state(run_id) is State.RUNNING)
    world.store.request_cancel(run_id)
    for _ in range(int(CANCEL_SECONDS) - 2):
        world.tick()
    assert world.state(run_id) is State.RUNNING
    world.finish()
    assert world.state(run_id) is State.CANCELLED
    assert world.cluster.stops == [f"{run_id}-a1"]
    assert not world.cluster.living


def test_runs_start_first_in_first_out_within_the_cluster(world: World) -> None:
    big = world.submit(fakes.work, resources={"cpus": 2})
    other = world.submit(fakes.succeed, resources={"cpus": 2})
    small = world.submit(fakes.succeed, resources={"cpus": 1})
    for _ in range(5):
        world.tick()
    assert [world.state(run_id) for run_id in (big, other, small)] == [State.RUNNING, State.QUEUED, State.QUEUED]
    assert world.store.get(other).reason == "waits for 1 × (2 CPUs) to become free"
    assert world.store.get(small).reason == "waits for the runs before it"
    world.store.request_cancel(big)
    world.finish()
    assert world.cluster.launches == [f"{run_id}-a1" for run_id in (big, other, small)]


def test_a_run_that_the_cluster_can_not_hold_says_so_blocks_nobody_and_fails_in_the_end(world: World) -> None:
    huge = world.submit(resources={"cpus": 64})
    small = world.submit()
    world.run_until(lambda: world.state(small) is State.SUCCEEDED)
    waiting = world.store.get(huge)
    assert waiting.state is State.QUEUED
    assert waiting.reason is not None
    assert "asks for 1 × (64 CPUs), and the whole cluster has 2 CPUs" in waiting.reason
    world.finish()
    assert world.state(huge) is State.FAILED
    assert world.store.get(huge).epoch == 0


def test_a_run_that_the_cluster_could_not_hold_starts_when_a_node_joins(world: World) -> None:
    huge = world.submit(resources={"cpus": 64})
    for _ in range(5):
        world.tick()
    world.cluster.nodes = (Node(2), Node(64))
    world.finish()
    assert world.state(huge) is State.SUCCEEDED


@pytest.mark.parametrize("told", [fakes.work, fakes.never_start])
def test_a_deadline_ends_a_run_wherever_it_is(world: World, told: fakes.Behaviour) -> None:
    running = world.submit(told, deadline_seconds=10.0)
    waiting = world.submit(resources={"cpus": 2}, deadline_seconds=10.0)
    world.finish()
    for run_id in (running, waiting):
        run = world.store.get(run_id)
        assert (run.state, run.reason) == (State.FAILED, "its deadline of 10 s is over")
    assert not world.cluster.living
