"""An application over a real SQLite store, with a key for every role and two owners."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI
from starlette.testclient import TestClient

from api.admission import Roots
from api.app import create_app
from cluster.runs import Run, State
from cluster.store import Point, Store
from configs.schema.kinds import AnySpec
from jobs.context import JobResult, Summary

OWNERS = {"ada": "submitter", "ada_viewer": "viewer", "bob": "submitter", "root": "admin"}
"""Name of a key → its role; the owner is the part before the underscore."""


@dataclass(frozen=True)
class Api:
    """The application as several callers see it."""

    app: FastAPI
    store: Store
    keys: dict[str, str]
    home: Path

    def as_(self, who: str | None) -> TestClient:
        """A client with the key of ``who``; None for one without a key."""
        headers = {} if who is None else {"Authorization": f"Bearer {self.keys[who]}"}
        return TestClient(self.app, headers=headers, raise_server_exceptions=False)

    def finish(
        self,
        spec: AnySpec,
        *,
        owner: str = "ada",
        artifacts: dict[str, str] | None = None,
        summaries: tuple[Summary, ...] = (),
        points: tuple[Point, ...] = (),
    ) -> Run:
        """A run that SUCCEEDED, as a driver leaves it."""
        run = self.store.submit(spec, owner=owner)
        output = self.output(run)
        output.mkdir(parents=True)
        self.store.enqueue(run.id)
        epoch = self.store.begin_attempt(run.id)
        self.store.start(run.id, epoch)
        self.store.add_points(run.id, epoch, points)
        result = JobResult(artifacts or {}, summaries)
        self.store.finish(run.id, epoch, State.SUCCEEDED, result=result, output=str(output))
        return self.store.get(run.id)

    @contextmanager
    def driver(
        self, files: Mapping[str, bytes], *, artifacts: dict[str, str], summaries: tuple[Summary, ...]
    ) -> Iterator[None]:
        """What a coordinator and a driver do with the first run that waits, while the block runs."""
        stop = threading.Event()

        def work() -> None:
            while not (runs := self.store.list(state=State.PENDING)):
                if stop.wait(0.02):
                    return
            run = self.store.enqueue(runs[0].id)
            epoch = self.store.begin_attempt(run.id)
            self.store.start(run.id, epoch)
            output = self.output(run)
            for name, content in files.items():
                (output / name).parent.mkdir(parents=True, exist_ok=True)
                (output / name).write_bytes(content)
            result = JobResult(artifacts, summaries)
            self.store.finish(run.id, epoch, State.SUCCEEDED, result=result, output=str(output))

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(20)

    def output(self, run: Run) -> Path:
        """Where the results of its first attempt are."""
        return self.home / "storage" / "runs" / run.id / "a1"


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated store; copying it takes less than migrating another."""
    file = tmp_path_factory.mktemp("store") / "store.sqlite"
    Store.open(f"sqlite:///{file}", migrate=True).close()
    return file


@pytest.fixture
def store(empty_store: Path, tmp_path: Path) -> Iterator[Store]:
    shutil.copy(empty_store, tmp_path / "store.sqlite")
    opened = Store.open(f"sqlite:///{tmp_path / 'store.sqlite'}")
    yield opened
    opened.close()


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    return Roots.of_home(tmp_path, str(tmp_path / "storage"))


@pytest.fixture
def api(store: Store, roots: Roots, tmp_path: Path) -> Api:
    keys = {who: store.create_key(who.partition("_")[0], role, who) for who, role in OWNERS.items()}
    return Api(create_app(store, roots=roots), store, keys, tmp_path)


@pytest.fixture
def url(api: Api) -> Iterator[str]:
    """The application behind a real socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(api.app, log_config=None, lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            # The socket listens already: a request made now waits for the server.
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=10)
            assert not thread.is_alive()
