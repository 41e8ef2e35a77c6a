"""The reconciler against a cluster made by hand."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from cluster.database import Database
from cluster.reconciler import CANCEL_SECONDS, LOST_SECONDS, SILENT_SECONDS, START_SECONDS, Reconciler
from cluster.runs import Run, State
from cluster.scheduler import Node
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
        self.crashes = 0
        self.restart()

    def restart(self) -> None:
        """A new reconciler that knows only what the store knows."""
        store, launcher = self.store, self.cluster
        if self._point is not None:
            store, launcher = self._point.wrap(store), self._point.wrap(launcher)
        self.reconciler = Reconciler(store, launcher, now=self.clock.now, monotonic=self.clock.monotonic)

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


@pytest.fixture
def world(sqlite_store: Store, clock: Clock) -> World:
    return World(sqlite_store, clock)


def test_a_run_is_queued_placed_launched_once_and_finished(world: World) -> None:
    run_id = world.submit()
    world.finish()
    run = world.store.get(run_id)
    assert (run.state, run.epoch) == (State.SUCCEEDED, 1)
    assert world.cluster.launches == [f"{run_id}-a1"]


def test_a_pipeline_runs_its_steps_in_order_and_gives_each_the_paths_of_those_before(world: World) -> None:
    parent = world.store.submit(specs.pipeline(output="/results"), owner="local")
    world.tick()
    assert {name: run.state for name, run in world.steps(parent.id).items()}["student"] is State.PENDING
    world.finish()
    steps = world.steps(parent.id)
    assert world.state(parent.id) is State.SUCCEEDED
    assert steps["student"].spec["teacher_model"]["name"] == f"/out/{steps['teacher'].id}/model"
    assert steps["student"].spec["dataset"]["name"] == f"/out/{steps['data'].id}/dataset"
    assert steps["student"].spec["output"] == "/results/student"
    assert steps["student"].name == "road/student"
    assert steps["data"].finished_at is not None
    for name in ("teacher", "other"):
        assert steps["data"].finished_at < steps[name].started_at  # type: ignore[operator]
    assert len(world.cluster.launches) == 4


def test_steps_that_do_not_wait_for_each_other_run_side_by_side(world: World) -> None:
    parent = world.store.submit(specs.pipeline(), owner="local")
    world.run_until(lambda: bool(world.steps(parent.id)) and world.steps(parent.id)["data"].state is State.SUCCEEDED)
    steps = world.steps(parent.id)
    world.cluster.behaviours |= {steps[name].id: [fakes.work] for name in ("teacher", "other")}
    world.run_until(lambda: all(world.steps(parent.id)[name].state is State.RUNNING for name in ("teacher", "other")))


def test_a_failed_step_fails_the_pipeline_with_its_reason_and_cancels_the_rest(world: World) -> None:
    parent = world.store.submit(specs.pipeline(), owner="local")
    world.run_until(lambda: bool(world.steps(parent.id)))
    steps = world.steps(parent.id)
    world.cluster.behaviours[steps["teacher"].id] = [fakes.fail]
    world.cluster.behaviours[steps["other"].id] = [fakes.work]
    world.finish()
    run = world.store.get(parent.id)
    assert (run.state, run.reason) == (State.FAILED, "step teacher failed: RuntimeError: boom")
    states = {name: run.state for name, run in world.steps(parent.id).items()}
    assert states["student"] is State.CANCELLED
    assert states["other"] is State.CANCELLED
    assert world.steps(parent.id)["teacher"].epoch == 2
    assert run.finished_at is not None
    assert all(run.finished_at >= step.finished_at for step in world.steps(parent.id).values())  # type: ignore[operator]


def test_an_output_that_a_step_did_not_make_fails_the_step_that_needs_it_and_says_what_to_do(world: World) -> None:
    parent = world.store.submit(specs.pipeline(), owner="local")
    world.run_until(lambda: bool(world.steps(parent.id)))

    def make_little(store: Store, run_id: str, epoch: int) -> bool:
        from jobs.context import JobResult

        store.start(run_id, epoch)
        store.finish(run_id, epoch, State.SUCCEEDED, result=JobResult({"dataset": "dataset"}), output="/x")
        return True

    world.cluster.behaviours[world.steps(parent.id)["data"].id] = [make_little]
    world.finish()
    reason = world.store.get(parent.id).reason
    assert reason is not None
    assert "step data made no tokenizer (it made dataset)" in reason


def test_a_cancelled_pipeline_ends_when_its_steps_have(world: World) -> None:
    parent = world.store.submit(specs.pipeline(), owner="local")
    world.run_until(lambda: bool(world.steps(parent.id)))
    world.cluster.behaviours[world.steps(parent.id)["data"].id] = [fakes.work]
    world.run_until(lambda: world.steps(parent.id)["data"].state is State.RUNNING)
    world.store.request_cancel(parent.id)
    world.finish()
    assert {run.state for run in world.store.list()} == {State.CANCELLED}
    assert world.store.get(parent.id).reason == "cancelled on request"


def test_cancelling_one_step_cancels_its_pipeline_and_says_so(world: World) -> None:
    parent = world.store.submit(specs.pipeline(), owner="local")
    world.run_until(lambda: bool(world.steps(parent.id)))
    world.store.request_cancel(world.steps(parent.id)["student"].id)
    world.finish()
    run = world.store.get(parent.id)
    assert (run.state, run.reason) == (State.CANCELLED, "step student was cancelled")


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


def test_a_pipelines_deadline_ends_its_steps_too(world: World) -> None:
    parent = world.store.submit(specs.pipeline(deadline_seconds=10.0), owner="local")
    world.run_until(lambda: bool(world.steps(parent.id)))
    world.cluster.behaviours[world.steps(parent.id)["data"].id] = [fakes.work]
    world.finish()
    assert world.state(parent.id) is State.FAILED
    assert {run.state for run in world.steps(parent.id).values()} == {State.CANCELLED}


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


# Killed anywhere.


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


# Killed after one call is nearly killed before the next: the quick tests do one of the two.
@pytest.mark.parametrize("after_effect", [True, pytest.param(False, marks=pytest.mark.soak)])
def test_a_coordinator_killed_at_any_call_loses_nothing_and_does_nothing_twice(
    tmp_path: Path, after_effect: bool
) -> None:
    template = tmp_path / "template.sqlite"
    Store.open(f"sqlite:///{template}", migrate=True).close()
    counting = CrashPoint(None, after_effect=False)
    clock = Clock()
    store = fresh_store(template, "whole", clock)
    check(*play(store, clock, counting))
    store.close()
    assert set(counting.calls) >= {"expand", "enqueue", "begin_attempt", "end_attempt", "close_run", "launch", "stop"}
    for at in range(len(counting.calls)):
        clock = Clock()
        store = fresh_store(template, str(at), clock)
        world, runs = play(store, clock, CrashPoint(at, after_effect=after_effect))
        assert world.crashes == 1
        check(world, runs)
        store.close()
