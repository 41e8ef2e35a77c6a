"""The store's promises, on SQLite and on PostgreSQL."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.runs import TRANSITIONS, Cause, Directive, Run, State
from cluster.store import IllegalTransition, Point, RunNotFound, StaleEpoch, Store
from jobs.context import JobResult, Summary
from tests.cluster import specs
from tests.cluster.conftest import Clock

RESULT = JobResult({"model": "model"}, (Summary("loss", 1.5), Summary("joint", 0.5, "student", 0.4, 0.6, 100)))


def queued(store: Store, **values: object) -> Run:
    return store.enqueue(store.submit(specs.prepare(**values), owner="local").id)


def running(store: Store, **values: object) -> tuple[str, int]:
    run = queued(store, **values)
    epoch = store.begin_attempt(run.id)
    store.start(run.id, epoch)
    return run.id, epoch


def test_a_submitted_run_is_pending_and_holds_the_resolved_spec(store: Store) -> None:
    spec = specs.finetune(name="first")
    run = store.submit(spec, owner="ann")
    assert (run.state, run.name, run.kind, run.owner, run.epoch) == (State.PENDING, "first", "finetune", "ann", 0)
    assert store.get(run.id) == run
    assert run.load_spec() == spec
    assert run.spec["training"]["batch_size"] == 4


def test_an_unknown_run_is_named(store: Store) -> None:
    with pytest.raises(RunNotFound, match="no run r-none"):
        store.get("r-none")
    with pytest.raises(RunNotFound):
        store.request_cancel("r-none")


def test_a_submission_id_makes_one_run_even_when_many_submit_at_once(store: Store) -> None:
    barrier = threading.Barrier(8)

    def submit(number: int) -> str:
        barrier.wait()
        return store.submit(specs.prepare(name=f"n{number}"), owner="local", submission_id="raysubmit_1").id

    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(submit, range(8)))
    assert len(set(ids)) == 1
    assert len(store.list()) == 1
    assert len(store.events(ids[0])) == 1
    found = store.find_submission("local", "raysubmit_1")
    assert found is not None
    assert found.id == ids[0]


def test_submission_ids_belong_to_their_owner_and_runs_without_one_are_all_new(store: Store) -> None:
    ids = {store.submit(specs.prepare(), owner=owner, submission_id="s").id for owner in ("ann", "bob")}
    ids |= {store.submit(specs.prepare(), owner="ann").id for _ in range(2)}
    assert len(ids) == 4
    assert store.find_submission("cat", "s") is None


def test_the_life_of_a_run_is_written_down(store: Store, clock: Clock) -> None:
    run_id, epoch = running(store)
    assert epoch == 1
    assert store.heartbeat(run_id, epoch, {"step": 3, "loss": 0.5}) is Directive.CONTINUE
    store.finish(run_id, epoch, State.SUCCEEDED, result=RESULT, output="/storage/x")
    run = store.get(run_id)
    assert (run.state, run.output, run.progress) == (State.SUCCEEDED, "/storage/x", {"step": 3, "loss": 0.5})
    assert run.created_at < run.started_at < run.finished_at  # type: ignore[operator]
    assert [event.state for event in store.events(run_id)] == ["PENDING", "QUEUED", "STARTING", "RUNNING", "SUCCEEDED"]
    last = store.events(run_id)[-1]
    assert store.events(run_id, after=last.id - 1) == [last]
    assert store.summaries(run_id) == list(RESULT.summaries)
    assert [(item.name, item.path) for item in store.artifacts(run_id)] == [("model", "/storage/x/model")]


def test_finishing_twice_with_the_same_word_changes_nothing(store: Store) -> None:
    run_id, epoch = running(store)
    store.finish(run_id, epoch, State.SUCCEEDED, result=RESULT, output="/x")
    before = store.get(run_id)
    store.finish(run_id, epoch, State.SUCCEEDED, result=JobResult({}), output="/y")
    assert store.get(run_id) == before
    assert len(store.artifacts(run_id)) == 1
    with pytest.raises(StaleEpoch):
        store.finish(run_id, epoch, State.FAILED, reason="late")


def test_success_without_a_start_is_refused(store: Store) -> None:
    run = queued(store)
    epoch = store.begin_attempt(run.id)
    with pytest.raises(IllegalTransition):
        store.finish(run.id, epoch, State.SUCCEEDED, result=RESULT, output="/x")
    assert store.get(run.id).state is State.STARTING
    assert store.artifacts(run.id) == []


WRITES: dict[str, Callable[[Store, str, int], object]] = {
    "start": lambda store, run, epoch: store.start(run, epoch),
    "heartbeat": lambda store, run, epoch: store.heartbeat(run, epoch, {"step": 9}),
    "generation": lambda store, run, epoch: store.next_generation(run, epoch),
    "points": lambda store, run, epoch: store.add_points(run, epoch, [Point("loss", 1, 1.0)], {"step": 9}),
    "finish": lambda store, run, epoch: store.finish(run, epoch, State.SUCCEEDED, result=RESULT, output="/x"),
    "end": lambda store, run, epoch: store.end_attempt(run, epoch, Cause.ERROR, "late"),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("end", ["superseded", "requeued", "finished", "cancelled"])
def test_a_stale_attempt_changes_nothing(store: Store, write: Callable[[Store, str, int], object], end: str) -> None:
    run_id, epoch = running(store, retries={"lost_nodes": 3})
    if end == "finished":
        store.finish(run_id, epoch, State.SUCCEEDED, result=JobResult({"other": "o"}), output="/y")
        write = WRITES["heartbeat"] if write is WRITES["finish"] else write
    elif end == "cancelled":
        store.close_run(run_id, State.CANCELLED)
    else:
        store.end_attempt(run_id, epoch, Cause.LOST, "gone")
        if end == "superseded":
            store.start(run_id, store.begin_attempt(run_id))
    before = (store.get(run_id), store.points(run_id), store.events(run_id), store.artifacts(run_id))
    with pytest.raises(StaleEpoch):
        write(store, run_id, epoch)
    assert (store.get(run_id), store.points(run_id), store.events(run_id), store.artifacts(run_id)) == before


def test_only_one_driver_starts_an_attempt(store: Store) -> None:
    run = queued(store)
    epoch = store.begin_attempt(run.id)
    barrier = threading.Barrier(4)

    def start(_: int) -> bool:
        barrier.wait()
        try:
            store.start(run.id, epoch)
        except StaleEpoch:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(start, range(4))) == [False, False, False, True]


def test_only_one_of_many_begins_an_attempt(store: Store) -> None:
    run = queued(store)
    barrier = threading.Barrier(4)

    def begin(_: int) -> int:
        barrier.wait()
        try:
            return store.begin_attempt(run.id)
        except IllegalTransition:
            return 0

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(begin, range(4))) == [0, 0, 0, 1]


def test_generations_only_grow_across_attempts(store: Store) -> None:
    run_id, epoch = running(store)
    first = [store.next_generation(run_id, epoch) for _ in range(2)]
    store.end_attempt(run_id, epoch, Cause.LOST, "gone")
    epoch = store.begin_attempt(run_id)
    assert [*first, store.next_generation(run_id, epoch)] == [1, 2, 3]


def test_an_attempts_end_counts_against_its_own_budget(store: Store) -> None:
    run_id, epoch = running(store, retries={"errors": 1, "lost_nodes": 1})
    assert store.end_attempt(run_id, epoch, Cause.LOST, "node gone") is State.QUEUED
    epoch = store.begin_attempt(run_id)
    assert store.end_attempt(run_id, epoch, Cause.ERROR, "boom") is State.QUEUED
    assert store.get(run_id).reason == "boom"
    epoch = store.begin_attempt(run_id)
    assert store.get(run_id).reason is None
    assert store.end_attempt(run_id, epoch, Cause.ERROR, "boom\nagain ") is State.FAILED
    run = store.get(run_id)
    assert (run.errors, run.lost, run.epoch, run.reason) == (2, 1, 3, "boom again")
    assert run.finished_at is not None


def test_a_time_to_try_again_is_kept_while_a_run_is_queued_and_forgotten_when_it_begins(
    store: Store, clock: Clock
) -> None:
    run_id, epoch = running(store, retries={"errors": 1})
    until = clock.now() + timedelta(seconds=90)
    store.postpone(run_id, until)
    assert store.get(run_id).retry_at is None
    store.end_attempt(run_id, epoch, Cause.ERROR, "boom")
    store.postpone(run_id, until)
    waiting = store.get(run_id)
    assert (waiting.state, waiting.retry_at, waiting.reason) == (State.QUEUED, until, "boom")
    store.begin_attempt(run_id)
    assert store.get(run_id).retry_at is None


def test_cancel_ends_what_has_not_begun_and_asks_what_runs(store: Store) -> None:
    pending = store.submit(specs.prepare(), owner="local")
    waiting = queued(store)
    run_id, epoch = running(store)
    assert store.request_cancel(pending.id).state is State.CANCELLED
    assert store.request_cancel(waiting.id).state is State.CANCELLED
    asked = store.request_cancel(run_id)
    assert (asked.state, asked.cancel_requested) == (State.RUNNING, True)
    assert store.request_cancel(run_id) == asked
    assert store.heartbeat(run_id, epoch) is Directive.STOP
    assert store.add_points(run_id, epoch, []) is Directive.STOP
    assert store.end_attempt(run_id, epoch, Cause.LOST, "stopped") is State.CANCELLED
    ended = store.get(run_id)
    assert ended.reason == "cancelled on request"
    assert store.request_cancel(run_id) == ended


def test_cancelling_a_pipeline_cancels_its_steps(store: Store) -> None:
    spec = specs.pipeline()
    parent = store.submit(spec, owner="local")
    steps = {run.step: run for run in store.expand(parent.id, spec.steps)}
    store.enqueue(steps["data"].id)
    epoch = store.begin_attempt(steps["data"].id)
    assert store.request_cancel(parent.id).state is State.RUNNING
    states = {run.step: (run.state, run.cancel_requested) for run in store.list(parent=parent.id)}
    assert states["data"] == (State.STARTING, True)
    assert {states[name] for name in ("teacher", "student", "other")} == {(State.CANCELLED, True)}
    assert store.heartbeat(steps["data"].id, epoch) is Directive.STOP


def test_a_pipeline_is_expanded_once_and_in_order(store: Store) -> None:
    spec = specs.pipeline()
    parent = store.submit(spec, owner="ann")
    first = store.expand(parent.id, spec.steps)
    again = store.expand(parent.id, spec.steps)
    assert [run.id for run in first] == [run.id for run in again]
    assert [run.step for run in reversed(store.list(parent=parent.id))] == list(spec.steps)
    assert {run.owner for run in first} == {"ann"}
    assert store.get(parent.id).state is State.RUNNING
    store.request_cancel(parent.id)
    for run in first:
        store.close_run(run.id, State.CANCELLED)
    store.close_run(parent.id, State.CANCELLED)
    with pytest.raises(IllegalTransition):
        store.expand(parent.id, spec.steps)


def test_an_attempt_that_was_taken_up_continues_the_series(store: Store) -> None:
    run_id, epoch = running(store)
    store.add_points(run_id, epoch, [Point("loss", step, 10.0 - step) for step in range(1, 6)])
    store.add_points(run_id, epoch, [Point("copy_loss", 1, 20.0)])
    store.end_attempt(run_id, epoch, Cause.LOST, "gone")
    second = store.begin_attempt(run_id)
    store.add_points(run_id, second, [Point("loss", step, 100.0 + step) for step in (4, 5, 6)])
    assert [point.value for point in store.points(run_id, "loss")] == [9.0, 8.0, 7.0, 104.0, 105.0, 106.0]
    assert [point.name for point in store.points(run_id)] == ["copy_loss", *["loss"] * 6]


def test_points_of_the_latest_attempt_count_and_repeating_them_changes_nothing(store: Store) -> None:
    run_id, epoch = running(store)
    store.add_points(run_id, epoch, [Point("loss", 1, 9.0), Point("loss", 2, 8.0), Point("loss", 3, 7.0)])
    store.end_attempt(run_id, epoch, Cause.LOST, "gone")
    assert len(store.points(run_id)) == 3
    epoch = store.begin_attempt(run_id)
    for value in (3.0, 2.0):
        store.add_points(run_id, epoch, [Point("loss", 1, value), Point("ce", 1, math.nan), Point("ce", 1, math.nan)])
    found = store.points(run_id)
    assert [(point.name, point.step) for point in found] == [("ce", 1), ("loss", 1)]
    assert math.isnan(found[0].value)
    assert store.points(run_id, "loss") == [Point("loss", 1, 2.0)]


def test_odd_numbers_and_texts_are_kept_or_replaced_but_never_refused(store: Store) -> None:
    run_id, epoch = running(store, name="nul \x00 ü 😀")
    store.heartbeat(run_id, epoch, {"loss": math.nan, "best": math.inf, "word": "ü"})
    assert store.get(run_id).progress == {"loss": None, "best": None, "word": "ü"}
    result = JobResult({}, [Summary("ppl", math.nan), Summary("max", math.inf, low=-math.inf)])
    store.finish(run_id, epoch, State.SUCCEEDED, reason="a\x00b", result=result, output="/ü")
    first, second = store.summaries(run_id)
    assert math.isnan(first.value)
    assert (second.value, second.low) == (math.inf, -math.inf)
    assert store.get(run_id).name == "nul \N{REPLACEMENT CHARACTER} ü 😀"


def test_a_reason_is_one_line_of_bounded_length(store: Store) -> None:
    run_id, epoch = running(store, retries={"errors": 0})
    store.end_attempt(run_id, epoch, Cause.ERROR, "line\n  other\t" + "x" * 10_000)
    reason = store.get(run_id).reason
    assert reason is not None
    assert reason.startswith("line other x")
    assert len(reason) == 2000


def test_what_a_queued_run_waits_for_is_said_and_forgotten_when_it_starts(store: Store) -> None:
    run = queued(store)
    store.explain(run.id, "waits for 2 CPUs")
    assert store.get(run.id).reason == "waits for 2 CPUs"
    store.begin_attempt(run.id)
    store.explain(run.id, "late")
    assert store.get(run.id).reason is None


CALLS: dict[str, Callable[[Store, str, int], object]] = {
    **WRITES,
    "enqueue": lambda store, run, epoch: store.enqueue(run),
    "begin": lambda store, run, epoch: store.begin_attempt(run),
    "lost": lambda store, run, epoch: store.end_attempt(run, epoch, Cause.LOST, "x"),
    "cancel": lambda store, run, epoch: store.request_cancel(run),
    "close": lambda store, run, epoch: store.close_run(run, State.FAILED),
}
STEPS = st.lists(st.sampled_from(sorted(CALLS)), max_size=12)


@given(STEPS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_sequence_of_calls_leaves_the_table_of_transitions(store: Store, steps: list[str]) -> None:
    run_id = store.submit(specs.prepare(), owner="local").id
    for step in steps:
        try:
            CALLS[step](store, run_id, store.get(run_id).epoch)
        except (StaleEpoch, IllegalTransition):
            continue
    states = [event.state for event in store.events(run_id) if event.message != "cancel requested"]
    for before, after in itertools.pairwise(states):
        assert after in TRANSITIONS[before]
    assert states[-1] == store.get(run_id).state
    assert (store.get(run_id).finished_at is not None) == states[-1].is_terminal
