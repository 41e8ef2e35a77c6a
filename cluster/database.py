"""The store's connection: SQLite or PostgreSQL by URL, migrations, and transactions that mean the same on both.

A write transaction on SQLite takes the write lock when it begins (``BEGIN IMMEDIATE``), so what it read stays true
until it commits; on PostgreSQL the caller locks the rows that it read (``FOR UPDATE``). Knows no runs.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, insert, inspect, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from cluster.migrations import HEAD
from cluster.tables import meta

BUSY_SECONDS = 10
"""How long a SQLite writer waits for another one."""
CONNECT_SECONDS = 10
MIGRATION_LOCK = 0x64697374
"""PostgreSQL's advisory lock that one migration at a time holds; the number is arbitrary."""


class StoreError(RuntimeError):
    """The store can't be reached, read or written; the message says what to do."""


class Database:
    """One opened results database."""

    def __init__(self, engine: Engine, store_id: str) -> None:
        self._engine = engine
        self.store_id = store_id

    @classmethod
    def open(cls, url: str, *, migrate: bool) -> Database:
        """Connect, migrate when asked, and check that it can be written and is of this code's revision.

        Raises:
            StoreError: unknown URL, unreachable, read-only, not migrated, or of a newer distox.
        """
        parsed = _parse(url)
        engine = _create_engine(parsed, create=migrate)
        try:
            with _translated(engine), _begin(engine, write=True) as connection:
                if migrate:
                    _migrate(connection)
                store_id = _check(connection)
        except StoreError:
            engine.dispose()
            raise
        return cls(engine, store_id)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one state of the store.

        Raises:
            StoreError: the database is unreachable.
        """
        with _translated(self._engine), _begin(self._engine, write=False) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that is committed at the end, or rolled back when an exception leaves it.

        Raises:
            StoreError: the database is unreachable, read-only or full, or another writer held it for too long.
        """
        with _translated(self._engine), _begin(self._engine, write=True) as connection:
            yield connection

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise StoreError(
            "the store's URL is no database URL; set DISTOX_STORE_URL to sqlite:////absolute/path/store.sqlite or "
            "postgresql+psycopg://user:password@host/database"
        ) from error
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise StoreError(f"the store can't be kept in {backend}; use sqlite:///… or postgresql+psycopg://…")
    if not parsed.database or parsed.database == ":memory:":
        raise StoreError(
            "a SQLite store in memory is seen by one process only; give a file: sqlite:////path/store.sqlite"
        )
    return parsed


def _create_engine(url: URL, *, create: bool) -> Engine:
    if url.get_backend_name() == "postgresql":
        try:
            return create_engine(
                url, pool_pre_ping=True, pool_size=5, connect_args={"connect_timeout": CONNECT_SECONDS}
            )
        except (NoSuchModuleError, ImportError) as error:
            raise StoreError(f"PostgreSQL needs psycopg ({error}); pip install 'psycopg[binary]'") from error
    file = Path(str(url.database)).absolute()
    if not create and not file.exists():
        raise StoreError(
            f"no store at {file}; start the stack with `distox up`, which makes one, or set DISTOX_STORE_URL"
        )
    if create:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"the store's folder {file.parent} can't be made ({error.strerror}); set DISTOX_HOME or "
                "DISTOX_STORE_URL to a place that can be written"
            ) from error
    engine = create_engine(url.set(database=str(file)), connect_args={"timeout": BUSY_SECONDS})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # None: the driver leaves BEGIN to us, which is what makes BEGIN IMMEDIATE possible.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={BUSY_SECONDS * 1000}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    is_write = connection.get_execution_options().get("distox_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")


@contextmanager
def _begin(engine: Engine, *, write: bool) -> Iterator[Connection]:
    with engine.connect() as connection:
        connection = connection.execution_options(distox_write=write)
        with connection.begin():
            yield connection


@contextmanager
def _translated(engine: Engine) -> Iterator[None]:
    """Turn the driver's errors into a StoreError that names the place (without its password) and the remedy."""
    try:
        yield
    except PoolTimeout as error:
        raise StoreError(f"the store {_name(engine)} is too busy ({error})") from error
    except DBAPIError as error:
        reason = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__
        raise StoreError(f"the store {_name(engine)} can't be used ({reason}); {_remedy(reason, engine)}") from error


def _name(engine: Engine) -> str:
    url = engine.url
    return str(url.database) if url.get_backend_name() == "sqlite" else url.render_as_string(hide_password=True)


def _remedy(reason: str, engine: Engine) -> str:
    if engine.url.get_backend_name() == "postgresql":
        return "check that DISTOX_STORE_URL names a running PostgreSQL, its user and password"
    known = {
        "readonly": "make the file and its folder writable, or set DISTOX_HOME or DISTOX_STORE_URL to another place",
        "unable to open": "make its folder writable, or set DISTOX_HOME or DISTOX_STORE_URL to another place",
        "full": "free space on its disk, or set DISTOX_HOME to another disk",
        "locked": f"another process held it for more than {BUSY_SECONDS} s; end that process",
        "not a database": "the file is something else; set DISTOX_STORE_URL to another file",
    }
    return next((remedy for word, remedy in known.items() if word in reason), "see the reason in parentheses")


def _migrate(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": MIGRATION_LOCK})
    current = _revision(connection)
    if current is not None and current > HEAD:
        raise StoreError(_newer(current))
    if current != HEAD:
        config = Config()
        config.set_main_option("script_location", "cluster:migrations")
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        command.upgrade(config, HEAD)
    if connection.execute(select(meta.c.value).where(meta.c.key == "store_id")).scalar() is None:
        connection.execute(insert(meta).values(key="store_id", value=uuid.uuid4().hex))


def _check(connection: Connection) -> str:
    """The store's id, once it's sure that this code understands the store."""
    current = _revision(connection)
    if current is None or current < HEAD:
        raise StoreError(
            f"the store is at revision {current or 'none'} and this distox needs {HEAD}; `distox up` migrates it"
        )
    if current > HEAD:
        raise StoreError(_newer(current))
    return str(connection.execute(select(meta.c.value).where(meta.c.key == "store_id")).scalar_one())


def _newer(current: str) -> str:
    return f"the store is at revision {current}, newer than the {HEAD} of this distox; install the newer distox"


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    value = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if value is None else str(value)
