"""``distox list``, ``show`` and ``cancel``: runs on a terminal and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

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
    assert "query.state = DONE" in result.stderr


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
        assert "no run r-00000000000zzzzzzz" in result.stderr


def test_cancel_ends_runs_and_says_when_there_is_nothing_to_cancel(api: Api, distox: Distox) -> None:
    first, second = (api.store.submit(export(), owner="ada").id for _ in range(2))
    assert distox("cancel", first, second).stdout == f"{first}: CANCELLED\n{second}: CANCELLED\n"
    result = distox("cancel", api.finish(export()).id)
    assert result.exit_code == 2
    assert "SUCCEEDED already" in result.stderr
