"""The reconciler when drivers die, fall silent or vanish, and when the cluster can't be reached."""

from __future__ import annotations

from datetime import timedelta

import pytest

from cluster.reconciler import LOST_SECONDS, SILENT_SECONDS, START_SECONDS, LaunchStatus
from cluster.runs import Run, State
from cluster.store import Store, StoreError
from tests.cluster import fakes, specs
from tests.cluster.conftest import Clock
from tests.cluster.world import World


@pytest.fixture
def world(sqlite_store: Store, clock: Clock) -> World:
    return World(sqlite_store, clock)


def test_a_driver_that_died_without_a_word_is_tried_again_and_its_log_is_the_reason(world: World) -> None:
    run_id = world.submit(fakes.die, fakes.die, retries={"errors": 1})
    world.finish()
    run = world.store.get(run_id)
    assert (run.state, run.reason, run.errors, run.lost, run.epoch) == (State.FAILED, "OSError: disk full", 2, 0, 2)


def test_a_driver_lost_with_its_node_counts_against_the_other_budget(world: World) -> None:
    world.cluster.lost = True
    run_id = world.submit(fakes.die, fakes.succeed, retries={"errors": 0, "lost_nodes": 1})
    world.finish()
    run = world.store.get(run_id)
    assert (run.state, run.errors, run.lost) == (State.SUCCEEDED, 0, 1)


def test_a_job_that_ray_calls_dead_is_believed_alive_while_its_heart_beats(world: World) -> None:
    run_id = world.submit(fakes.work)
    world.run_until(lambda: world.state(run_id) is State.RUNNING)
    name, living = next(iter(world.cluster.living.items()))
    for _ in range(int(3 * SILENT_SECONDS)):
        del world.cluster.living[name]
        world.cluster.ended.add(name)
        world.reconciler.tick()
        world.cluster.ended.discard(name)
        world.cluster.living[name] = living
        world.cluster.beat()
        world.clock.advance(1)
    assert (world.state(run_id), world.store.get(run_id).epoch) == (State.RUNNING, 1)


def test_a_driver_that_lives_but_gives_no_sign_is_ended_and_replaced(world: World) -> None:
    run_id = world.submit(fakes.hang, fakes.succeed)
    world.finish()
    run = world.store.get(run_id)
    assert (run.state, run.lost, run.epoch) == (State.SUCCEEDED, 1, 2)
    assert world.cluster.stops == [f"{run_id}-a1"]
    silence = next(event for event in world.store.events(run_id) if event.message and "sign of life" in event.message)
    assert silence.at - run.created_at > timedelta(seconds=LOST_SECONDS)


def test_a_store_that_was_away_costs_no_attempt(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = world.submit(fakes.work)
    world.run_until(lambda: world.state(run_id) is State.RUNNING)
    world.tick()
    with monkeypatch.context() as patched:

        def unreachable() -> None:
            raise StoreError("the store is away")

        patched.setattr(world.store, "unfinished", unreachable)
        for _ in range(int(LOST_SECONDS) + 5):
            with pytest.raises(StoreError):
                world.reconciler.tick()
            world.clock.advance(1)
    world.reconciler.tick()
    assert (world.state(run_id), world.store.get(run_id).epoch) == (State.RUNNING, 1)
    assert world.cluster.stops == []
    for _ in range(int(LOST_SECONDS) + 5):
        world.reconciler.tick()
        world.clock.advance(1)
    assert world.store.get(run_id).lost == 1, "from then on silence counts again"


def test_a_run_that_beat_while_a_call_for_another_hung_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, quick = world.submit(fakes.work), world.submit(fakes.work)
    world.run_until(lambda: {world.state(slow), world.state(quick)} == {State.RUNNING})
    world.tick()
    status = world.cluster.status

    def hang(run: Run, epoch: int) -> LaunchStatus:
        world.clock.advance(LOST_SECONDS + 1)
        world.cluster.beat()
        return status(run, epoch)

    monkeypatch.setattr(world.cluster, "status", hang)
    world.reconciler.tick()
    assert [world.state(run_id) for run_id in (slow, quick)] == [State.RUNNING, State.RUNNING]


def test_a_driver_that_never_reports_is_given_up_after_its_start_time(world: World) -> None:
    run_id = world.submit(fakes.never_start, fakes.succeed)
    world.run_until(lambda: world.store.get(run_id).epoch == 2, ticks=int(START_SECONDS) + 20)
    world.finish()
    assert world.state(run_id) is State.SUCCEEDED


def test_a_cluster_that_went_away_costs_an_attempt_and_not_the_run(world: World) -> None:
    run_id = world.submit(fakes.work, fakes.succeed)
    world.run_until(lambda: world.state(run_id) is State.RUNNING)
    world.cluster.vanish()
    world.restart()
    world.finish()
    run = world.store.get(run_id)
    assert (run.state, run.lost, run.epoch) == (State.SUCCEEDED, 1, 2)


def test_an_attempt_that_was_begun_but_not_launched_is_launched(world: World) -> None:
    run_id = world.submit()
    world.store.enqueue(run_id)
    world.store.begin_attempt(run_id)
    world.finish()
    assert world.cluster.launches == [f"{run_id}-a1"]
    assert world.state(run_id) is State.SUCCEEDED


def test_while_the_cluster_is_unreachable_nothing_is_decided(world: World) -> None:
    run_id = world.submit(fakes.hang, fakes.succeed)
    world.run_until(lambda: world.state(run_id) is State.RUNNING)
    world.cluster.unreachable = True
    other = world.submit()
    for _ in range(int(LOST_SECONDS) + 10):
        world.tick()
    assert (world.state(run_id), world.state(other)) == (State.RUNNING, State.QUEUED)
    world.cluster.unreachable = False
    world.finish()
    assert (world.state(run_id), world.state(other)) == (State.SUCCEEDED, State.SUCCEEDED)


def test_a_launch_that_fails_is_tried_again(world: World) -> None:
    run_id = world.submit()
    world.store.enqueue(run_id)
    capacity = world.cluster.capacity()
    world.cluster.capacity = lambda: capacity  # type: ignore[method-assign]
    world.cluster.unreachable = True
    world.tick()
    assert world.state(run_id) is State.STARTING
    world.cluster.unreachable = False
    world.finish()
    assert (world.state(run_id), world.store.get(run_id).epoch) == (State.SUCCEEDED, 1)


def test_a_spec_that_this_version_can_not_read_fails_its_run_and_no_other(world: World) -> None:
    from sqlalchemy import update

    from cluster.tables import runs

    bad = world.store.submit(specs.pipeline(), owner="local").id
    with world.store._database.write() as connection:
        connection.execute(update(runs).where(runs.c.id == bad).values(spec={"kind": "pipeline", "stepz": {}}))
    good = world.submit()
    world.finish()
    assert (world.state(bad), world.state(good)) == (State.FAILED, State.SUCCEEDED)
    assert "stepz" in str(world.store.get(bad).reason)
