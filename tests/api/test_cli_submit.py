"""``distox submit``: a spec becomes a run, and the run is watched."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cluster.runs import State
from cluster.store import Store
from jobs.context import JobResult
from tests.api.command import Distox, run_command
from tests.api.conftest import Api

DEADLINE_SECONDS = 20.0


@pytest.fixture
def distox(api: Api, url: str) -> Distox:
    return Distox(api, url, "ada")


def write_spec(folder: Path, text: str = "kind: export\nname: little\nmodel: {name: someone/student}\n") -> str:
    file = folder / "spec.yaml"
    file.write_text(text, "utf-8")
    return str(file)


def take_up(store: Store, stop: threading.Event, *, state: State, reason: str | None = None) -> None:
    """Do with the first PENDING run what a coordinator and a driver do."""
    while not (runs := store.list(state=State.PENDING)):
        if stop.wait(0.02):
            return
    run = store.enqueue(runs[0].id)
    epoch = store.begin_attempt(run.id)
    store.start(run.id, epoch)
    store.heartbeat(run.id, epoch, {"loss": 1.25, "share_done": 0.5})
    store.finish(run.id, epoch, state, reason=reason, result=JobResult({}) if state is State.SUCCEEDED else None)


@contextmanager
def coordinator(store: Store, **ends: Any) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=take_up, args=(store, stop), kwargs=ends)
    thread.start()
    yield
    stop.set()
    thread.join(DEADLINE_SECONDS)
    assert not thread.is_alive()


def test_submit_detached_returns_at_once_with_the_run(api: Api, distox: Distox, tmp_path: Path) -> None:
    result = distox("submit", write_spec(tmp_path), "--detach", "--name", "nightly")
    assert result.exit_code == 0, result.stderr
    (run,) = api.store.list()
    assert (run.owner, run.name) == ("ada", "nightly")
    assert result.stdout == f"submitted export nightly as {run.id}\n"


@pytest.mark.parametrize(
    ("state", "reason", "code"),
    [
        (State.SUCCEEDED, None, 0),
        (State.FAILED, "the model isn't one", 1),
        (State.CANCELLED, "cancelled on request", 130),
    ],
)
def test_submit_follows_the_run_and_exits_with_its_state(
    api: Api, distox: Distox, tmp_path: Path, state: State, reason: str | None, code: int
) -> None:
    with coordinator(api.store, state=state, reason=reason):
        result = distox("submit", write_spec(tmp_path))
    assert result.exit_code == code, result.stderr
    assert str(state) in result.stdout
    assert (reason or "distox metrics") in result.stdout


def test_submit_as_json_prints_one_document_and_the_rest_elsewhere(api: Api, distox: Distox, tmp_path: Path) -> None:
    with coordinator(api.store, state=State.SUCCEEDED):
        result = distox("submit", write_spec(tmp_path), "--json")
    assert json.loads(result.stdout)["state"] == "SUCCEEDED"
    assert "SUCCEEDED" in result.stderr


def test_submit_with_the_same_key_is_the_same_run(api: Api, distox: Distox, tmp_path: Path) -> None:
    for _ in range(2):
        result = distox("submit", write_spec(tmp_path), "--detach", "--idempotency-key", "monday")
        assert result.exit_code == 0
    assert len(api.store.list()) == 1


def test_submit_makes_relative_paths_absolute(
    api: Api, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dump.csv").write_text("text\nhello\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    spec = write_spec(tmp_path, "kind: detoxify\nmodel: {name: someone/student}\ninput: {path: dump.csv}\n")
    result = Distox(api, url, "root")("submit", spec, "--detach")
    assert result.exit_code == 0, result.stderr
    assert api.store.list()[0].spec["input"]["path"] == str(tmp_path / "dump.csv")


def test_submit_of_a_file_that_may_not_be_read_names_it_in_this_folder_and_submits_nothing(
    api: Api, distox: Distox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = write_spec(tmp_path, "kind: detoxify\nmodel: {name: someone/student}\ninput: {path: dump.csv}\n")
    result = distox("submit", spec, "--detach")
    assert result.exit_code == 2
    assert f"input.path = {tmp_path / 'dump.csv'}" in result.stderr
    assert api.store.list() == []


def test_submit_of_a_wrong_spec_asks_no_api_and_prints_each_fault(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, "kind: export\nmodel: {nam: x}\nquantization: 8\n")
    result = run_command("submit", spec, environment={"DISTOX_HOME": str(tmp_path)})
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 2


def test_a_spec_file_that_is_not_there_is_named_once(tmp_path: Path) -> None:
    result = run_command("submit", str(tmp_path / "none.yaml"), environment={"DISTOX_HOME": str(tmp_path)})
    assert result.exit_code == 2
    assert result.stderr.startswith(f"{tmp_path / 'none.yaml'}: no such file")
    assert result.stderr.count("none.yaml") == 1


def test_what_the_api_refuses_is_printed_fault_by_fault(distox: Distox, tmp_path: Path) -> None:
    spec = write_spec(tmp_path, "kind: detoxify\nmodel: {name: /etc}\ninput: {path: /etc/passwd}\n")
    result = distox("submit", spec, "--detach")
    assert result.exit_code == 2
    assert [line.split(" = ")[0] for line in result.stderr.splitlines()] == ["model.name", "input.path"]


def test_ctrl_c_stops_the_watching_and_not_the_run(
    api: Api, distox: Distox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **values: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("api.cli.follow.follow", interrupted)
    result = distox("submit", write_spec(tmp_path))
    (run,) = api.store.list()
    assert result.exit_code == 130
    assert f"distox cancel {run.id}" in result.stderr
    assert not run.cancel_requested
