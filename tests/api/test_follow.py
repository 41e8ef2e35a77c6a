"""Following a run over an API that comes and goes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import pytest

from api.cli import follow as module
from api.cli.follow import follow
from api.client import ApiError, ApiUnreachable, Client
from api.schemas import RunDetail, RunView
from cluster.runs import State

START = datetime(2030, 1, 1, tzinfo=UTC)


def view(state: State, **values: Any) -> dict[str, Any]:
    nothing = dict.fromkeys(("reason", "parent", "step", "started_at", "finished_at", "submission_id", "output"))
    fixed = {"id": "r-1", "name": "road", "kind": "pipeline", "owner": "ada", "epoch": 1, "created_at": START}
    counts = {"cancel_requested": False, "progress": {}, "errors": 0, "lost": 0}
    return {**nothing, **fixed, **counts, "state": state, **values}


def run(state: State, *children: RunView, **values: Any) -> RunDetail:
    return RunDetail(**view(state, **values), spec={}, children=list(children))


class Answers:
    """A client that gives one answer after another."""

    def __init__(self, *answers: RunDetail | Exception) -> None:
        self._answers = list(answers)

    def run(self, run_id: str) -> RunDetail:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def followed(*answers: RunDetail | Exception) -> list[str]:
    lines: list[str] = []
    follow(cast("Client", Answers(*answers)), "r-1", say=lines.append, poll_seconds=0)
    return [" ".join(line.split()[1:]) for line in lines]


def test_each_change_is_said_once_and_the_end_after_that_of_the_steps() -> None:
    working = RunView(**view(State.RUNNING, id="r-2", step="teacher", parent="r-1"))
    done = RunView(**view(State.SUCCEEDED, id="r-2", step="teacher", parent="r-1", finished_at=START))
    lines = followed(
        run(State.PENDING),
        run(State.RUNNING, working),
        run(State.RUNNING, working),
        run(State.SUCCEEDED, done, finished_at=START),
    )
    assert lines == ["r-1 PENDING", "r-1 RUNNING", "teacher RUNNING", "teacher SUCCEEDED", "r-1 SUCCEEDED"]


def test_progress_is_said_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROGRESS_SECONDS", 0.0)
    halves = [run(State.RUNNING, progress={"loss": loss}) for loss in (2.0, 1.0, 1.0)]
    lines = followed(run(State.RUNNING), *halves, run(State.SUCCEEDED, finished_at=START))
    assert lines == ["r-1 RUNNING", "r-1 RUNNING loss 2", "r-1 RUNNING loss 1", "r-1 SUCCEEDED"]


def test_an_api_that_is_away_for_a_while_is_waited_for() -> None:
    away = ApiUnreachable("no API answers")
    lines = followed(run(State.RUNNING), away, away, ApiError(503, "no store"), run(State.SUCCEEDED, finished_at=START))
    assert lines == ["r-1 RUNNING", "r-1 SUCCEEDED"]


def test_an_api_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OUTAGE_SECONDS", 0.0)
    with pytest.raises(ApiUnreachable):
        followed(ApiUnreachable("no API answers"))


def test_a_run_that_may_not_be_seen_ends_the_following_at_once() -> None:
    with pytest.raises(ApiError):
        followed(ApiError(404, "no run"))


def test_a_run_that_nobody_takes_up_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "UNCLAIMED_SECONDS", -1.0)
    lines = followed(run(State.PENDING), run(State.PENDING), run(State.CANCELLED, finished_at=START))
    assert [line for line in lines if "coordinator" in line] == [
        "takes it up: no coordinator seems to run (see `distox status`)"
    ]
