"""The reconciler leads a pipeline through its steps."""

from __future__ import annotations

import pytest

from cluster.runs import State
from cluster.store import Store
from tests.cluster import fakes, specs
from tests.cluster.conftest import Clock
from tests.cluster.world import World


@pytest.fixture
def world(sqlite_store: Store, clock: Clock) -> World:
    return World(sqlite_store, clock)


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
    assert {name for name, run in world.steps(parent.id).items() if run.state is State.RUNNING} == {"teacher", "other"}


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


def test_a_pipelines_deadline_ends_its_steps_too(world: World) -> None:
    parent = world.store.submit(specs.pipeline(deadline_seconds=10.0), owner="local")
    world.run_until(lambda: bool(world.steps(parent.id)))
    world.cluster.behaviours[world.steps(parent.id)["data"].id] = [fakes.work]
    world.finish()
    assert world.state(parent.id) is State.FAILED
    assert {run.state for run in world.steps(parent.id).values()} == {State.CANCELLED}
