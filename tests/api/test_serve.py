"""``python -m api`` as a process."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from cluster.store import Store

ROOT = Path(__file__).parents[2]
DEADLINE_SECONDS = 30.0

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def home(empty_store: Path, tmp_path: Path) -> Path:
    shutil.copy(empty_store, tmp_path / "store.sqlite")
    return tmp_path


@pytest.fixture
def start(home: Path) -> Iterator[Start]:
    """Starts ``python -m api`` with arguments and further variables; ended after the test."""
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: str, **variables: str) -> subprocess.Popen[str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("DISTOX_", "RAY_"))}
        environment = {**kept, "DISTOX_HOME": str(home), **variables}
        command = [sys.executable, "-m", "api", *arguments]
        child = subprocess.Popen(
            command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        started.append(child)
        return child

    yield begin
    for child in started:
        if child.poll() is None:
            child.kill()
        child.communicate(timeout=10)


def wait_for(file: Path, child: subprocess.Popen[str]) -> str:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not file.exists():
        assert child.poll() is None, child.communicate()[1]
        assert time.monotonic() < deadline
    return file.read_text("utf-8").strip()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_answers_once_the_ready_file_is_there_and_ends_tidily(home: Path, start: Start, number: int) -> None:
    child = start("--port", "0", "--ready-file", str(home / "ready"))
    url = wait_for(home / "ready", child)
    assert url.startswith("http://127.0.0.1:")
    assert httpx.get(f"{url}/v1/health").json()["status"] == "ok"
    assert httpx.get(f"{url}/v1/runs").status_code == 401
    child.send_signal(number)
    out, err = child.communicate(timeout=15)
    assert child.returncode == 0
    # One line says where it serves; requests are not logged.
    assert (out, len(err.splitlines())) == ("", 1)


def test_a_port_in_use_is_said_with_what_to_do(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        child = start("--port", str(port))
        _, err = child.communicate(timeout=DEADLINE_SECONDS)
    assert child.returncode == 1
    assert f"127.0.0.1:{port} is in use" in err
    assert "DISTOX_API_PORT" in err
    assert "Traceback" not in err


def test_two_apis_of_one_store_see_the_same(home: Path, start: Start) -> None:
    first = start("--ready-file", str(home / "first"))
    second = start("--ready-file", str(home / "second"))
    urls = [wait_for(home / "first", first), wait_for(home / "second", second)]
    store = Store.open(f"sqlite:///{home / 'store.sqlite'}")
    headers = {"Authorization": f"Bearer {store.create_key('ada', 'submitter', 'test')}"}
    store.close()
    spec = {"kind": "export", "model": {"name": "someone/student"}}
    run = httpx.post(f"{urls[0]}/v1/runs", json=spec, headers=headers).json()
    assert httpx.get(f"{urls[1]}/v1/runs/{run['id']}", headers=headers).json() == run


@pytest.mark.parametrize(
    ("variables", "code", "words"),
    [
        ({"DISTOX_STORE_URL": "sqlite:////nowhere/store.sqlite"}, 1, "distox up"),
        ({"DISTOX_STORE_URL": "postgresql+psycopg://u:sesame@127.0.0.1:1/x"}, 1, "DISTOX_STORE_URL"),
        ({"DISTOX_STORE_ID": "another"}, 1, "DISTOX_STORE_ID"),
        ({"DISTOX_API_PORT": "http"}, 2, "DISTOX_API_PORT"),
        ({"DISTOX_API_HOST": "no.such.host.invalid"}, 1, "--host 127.0.0.1"),
    ],
)
def test_what_it_can_not_serve_is_one_line_and_no_traceback(
    start: Start, variables: dict[str, str], code: int, words: str
) -> None:
    child = start(**variables)
    _, err = child.communicate(timeout=DEADLINE_SECONDS)
    assert child.returncode == code
    assert words in err
    assert len(err.splitlines()) == 1
    assert "sesame" not in err


def test_a_wrong_port_is_a_wrong_usage(start: Start) -> None:
    child = start("--port", "70000")
    _, err = child.communicate(timeout=DEADLINE_SECONDS)
    assert child.returncode == 2
    assert "70000" in err
