"""``distox list``, ``show`` and ``cancel``: runs on a terminal and as JSON."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cluster.runs import Cause
from tests.api.command import Distox
from tests.api.conftest import Api
from tests.api.specs import export, pipeline


@pytest.fixture
def distox(api: Api, url: str) -> Distox:
    return Distox(api, url, "ada")


def test_list_shows_runs_newest_first_and_steps_on_demand(api: Api, distox: Distox) -> None:
    assert "no runs" in distox("list").stdout
    first = api.store.submit(export(name="[bold]x[/bold]"), owner="ada")
    road = api.store.submit(pipeline(), owner="ada")
    steps = api.store.expand(road.id, pipeline().steps)  # type: ignore[union-attr]
    shown = distox("list").stdout
    assert shown.index(road.id) < shown.index(first.id)
    assert "[bold]x[/bold]" in shown
    assert steps[0].id not in shown
    assert steps[0].id in distox("list", "--steps").stdout
    found = json.loads(distox("list", "--kind", "export", "--json", "--name", "BOLD").stdout)
    assert [run["id"] for run in found] == [first.id]
    assert [run["id"] for run in json.loads(distox("list", "--state", "running", "--json").stdout)] == [road.id]


def test_a_filter_that_is_none_is_named(distox: Distox) -> None:
    result = distox("list", "--state", "done")
    assert result.exit_code == 2
    assert result.stderr == (
        "--state = DONE: is none of the values that it may have; use one of PENDING, QUEUED, STARTING, RUNNING, "
        "SUCCEEDED, FAILED, CANCELLED\n"
    )
    assert (
        "--kind = distil: is none of the values that it may have; did you mean distill?"
        in distox("list", "--kind", "distil").stderr
    )


def test_filters_that_leave_nothing_are_told_apart_from_a_store_without_runs(api: Api, distox: Distox) -> None:
    assert distox("list").stdout == "no runs; submit one with `distox submit SPEC`\n"
    api.store.submit(export(), owner="ada")
    assert "no run is like that" in distox("list", "--name", "nightly").stdout


def test_show_tells_state_reason_and_steps(api: Api, distox: Distox) -> None:
    road = api.store.submit(pipeline(), owner="ada")
    steps = api.store.expand(road.id, pipeline().steps)  # type: ignore[union-attr]
    api.store.enqueue(steps[0].id)
    api.store.explain(steps[0].id, "waits for 2 CPUs")
    shown = distox("show", road.id).stdout
    for words in (road.id, "RUNNING", "smaller", "waits for 2 CPUs"):
        assert words in shown
    assert json.loads(distox("show", road.id, "--json").stdout)["children"][0]["reason"] == "waits for 2 CPUs"


def test_an_unknown_run_is_said_on_every_command(distox: Distox, tmp_path: Path) -> None:
    for command in (["show"], ["cancel"], ["metrics"], ["artifacts", "list"]):
        result = distox(*command, "r-00000000000zzzzzzz")
        assert result.exit_code == 2
        assert result.stderr == "distox: no run r-00000000000zzzzzzz; `distox list --steps` shows yours\n"


def test_cancel_ends_runs_and_says_when_there_is_nothing_to_cancel(api: Api, distox: Distox) -> None:
    first, second = (api.store.submit(export(), owner="ada").id for _ in range(2))
    assert distox("cancel", first, second).stdout == f"{first}: CANCELLED\n{second}: CANCELLED\n"
    result = distox("cancel", api.finish(export()).id)
    assert result.exit_code == 2
    assert "SUCCEEDED already" in result.stderr


def test_one_run_that_can_not_be_cancelled_keeps_no_other_from_it(api: Api, distox: Distox) -> None:
    ended, waiting = api.finish(export()).id, api.store.submit(export(), owner="ada").id
    result = distox("cancel", ended, "r-00000000000zzzzzzz", waiting)
    assert result.exit_code == 2
    assert result.stdout == f"{waiting}: CANCELLED\n"
    assert len(result.stderr.splitlines()) == 2


def test_a_run_that_waits_for_its_next_attempt_says_until_when(api: Api, distox: Distox) -> None:
    run = api.store.enqueue(api.store.submit(export(retries={"errors": 1}), owner="ada").id)
    api.store.end_attempt(run.id, api.store.begin_attempt(run.id), Cause.ERROR, "disk full")
    api.store.postpone(run.id, datetime.now(UTC) + timedelta(seconds=1000))
    shown = distox("show", run.id).stdout
    assert "disk full" in shown
    assert re.search(r"tried again +in (999|1000) s", shown)
