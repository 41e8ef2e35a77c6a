"""Stores on SQLite and on PostgreSQL, with a clock that tests set."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from cluster.database import Database
from cluster.store import Store
from tests.postgres_server import find_binaries, run_server


class Clock:
    """A wall clock and a monotonic one that only move when told to."""

    def __init__(self) -> None:
        self._start = datetime(2030, 1, 1, tzinfo=UTC)
        self._seconds = 0.0

    def now(self) -> datetime:
        """Each reading is a microsecond later, as on a real clock."""
        self._seconds += 1e-6
        return self._start + timedelta(seconds=self._seconds)

    def monotonic(self) -> float:
        return self._seconds

    def advance(self, seconds: float) -> None:
        self._seconds += seconds


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL here (apt install postgresql)")
    with run_server(binaries) as url:
        yield url


@pytest.fixture(scope="session")
def postgres_template(postgres_server: str) -> str:
    """A migrated database that others are copied from: a copy takes a tenth of a migration."""
    _execute(postgres_server, "CREATE DATABASE template_store")
    Store.open(_database_url(postgres_server, "template_store"), migrate=True).close()
    return postgres_server


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a migrated, empty store."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'store.sqlite'}"
        Store.open(url, migrate=True).close()
        yield url
        return
    server = request.getfixturevalue("postgres_template")
    name = f"t{uuid.uuid4().hex[:12]}"
    _execute(server, f"CREATE DATABASE {name} TEMPLATE template_store")
    yield _database_url(server, name)
    _execute(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(store_url: str, clock: Clock) -> Iterator[Store]:
    opened = Store(Database.open(store_url, migrate=False), clock=clock.now)
    yield opened
    opened.close()


@pytest.fixture
def sqlite_store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    """For tests of what stands above the store, which need no second database."""
    opened = Store(Database.open(f"sqlite:///{tmp_path / 'store.sqlite'}", migrate=True), clock=clock.now)
    yield opened
    opened.close()


@pytest.fixture
def empty_postgres(postgres_server: str) -> Iterator[str]:
    """The URL of a database without tables."""
    name = f"t{uuid.uuid4().hex[:12]}"
    _execute(postgres_server, f"CREATE DATABASE {name}")
    yield _database_url(postgres_server, name)
    _execute(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


def _database_url(server: str, name: str) -> str:
    return make_url(server).set(database=name).render_as_string(hide_password=False)


def _execute(server: str, statement: str) -> None:
    engine = create_engine(server, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()
