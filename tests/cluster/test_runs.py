"""States, ids and budgets."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.rows import new_row
from cluster.runs import TRANSITIONS, Cause, Run, State, job_id, new_run_id, state_after
from tests.cluster import specs

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def a_run(**values: object) -> Run:
    row = new_row(specs.prepare(retries={"errors": 2, "lost_nodes": 1}), owner="local", now=NOW)
    row |= {"state": State.RUNNING, "reason": None, "parent": None, "step": None, "submission_id": None}
    row |= {"started_at": NOW, "finished_at": None, "heartbeat_at": None, "output": None}
    row |= {"retry_at": None}
    del row["generation"], row["folded_name"]
    return replace(Run(**row), **values)  # type: ignore[arg-type]


def test_terminal_states_are_those_that_nothing_follows() -> None:
    assert {state for state in State if state.is_terminal} == {State.SUCCEEDED, State.FAILED, State.CANCELLED}


def test_every_state_can_be_reached_and_every_open_state_can_end_badly() -> None:
    reachable = {State.PENDING}.union(*TRANSITIONS.values())
    assert reachable == set(State)
    for state in State:
        if not state.is_terminal:
            assert {State.FAILED, State.CANCELLED} <= TRANSITIONS[state]


def test_success_follows_only_running() -> None:
    assert [state for state in State if State.SUCCEEDED in TRANSITIONS[state]] == [State.RUNNING]


@pytest.mark.parametrize(
    ("cause", "errors", "lost", "expected"),
    [
        (Cause.ERROR, 0, 0, State.QUEUED),
        (Cause.ERROR, 1, 9, State.QUEUED),
        (Cause.ERROR, 2, 0, State.FAILED),
        (Cause.LOST, 9, 0, State.QUEUED),
        (Cause.LOST, 0, 1, State.FAILED),
        (Cause.WRONG_INPUT, 0, 0, State.FAILED),
    ],
)
def test_the_two_budgets_are_separate_and_wrong_input_has_none(
    cause: Cause, errors: int, lost: int, expected: State
) -> None:
    assert state_after(a_run(errors=errors, lost=lost), cause) is expected


@pytest.mark.parametrize("cause", list(Cause))
def test_a_run_that_was_asked_to_stop_is_cancelled_whatever_ended_it(cause: Cause) -> None:
    assert state_after(a_run(cancel_requested=True), cause) is State.CANCELLED


@given(st.integers(min_value=0, max_value=10**15), st.integers(min_value=1, max_value=10**12))
def test_ids_sort_by_time(start: int, later: int) -> None:
    first = new_run_id(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=start))
    second = new_run_id(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=start + later))
    assert first < second


def test_ids_made_together_keep_their_order() -> None:
    ids = [new_run_id(NOW, offset=offset) for offset in range(100)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 100


def test_an_id_is_safe_in_urls_file_names_and_redis_keys() -> None:
    name = job_id(new_run_id(NOW), 3)
    assert name.startswith("r-")
    assert name.endswith("-a3")
    assert set(name) <= set("0123456789abcdefghijklmnopqrstuvwxyz-")


def test_a_stored_spec_is_read_back_as_the_same_spec() -> None:
    for spec in (specs.finetune(training={"num_workers": 2}), specs.pipeline(), specs.detoxify(), specs.prepare()):
        row = new_row(spec, owner="local", now=NOW)
        assert a_run(spec=row["spec"]).load_spec() == spec
