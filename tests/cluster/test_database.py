"""Opening the store: migrations, identity, and answers to what can't be opened."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text

from cluster.database import Database, StoreError
from cluster.migrations import HEAD
from cluster.store import Store
from cluster.tables import metadata
from tests.cluster import specs


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


def test_the_head_that_the_code_names_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", "cluster:migrations")
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


def test_the_migrations_make_the_tables_that_the_code_describes(store_url: str) -> None:
    engine = create_engine(store_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_migrating_again_keeps_data_and_identity(store_url: str) -> None:
    first = Store.open(store_url)
    run = first.submit(specs.prepare(), owner="local")
    again = Store.open(store_url, migrate=True)
    assert again.store_id == first.store_id
    assert again.get(run.id) == run
    first.close()
    again.close()


def test_names_of_runs_from_before_they_were_folded_are_found(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    old = Store.open(store_url)
    named, unnamed = (old.submit(specs.prepare(name=name), owner="local") for name in ("Größe", None))
    with old._database.write() as connection:
        for column in ("folded_name", "retry_at"):
            connection.exec_driver_sql(f"ALTER TABLE runs DROP COLUMN {column}")
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    old.close()
    with pytest.raises(StoreError, match=f"at revision 0001 and this distox needs {HEAD}; `distox up` migrates it"):
        Store.open(store_url)
    store = Store.open(store_url, migrate=True)
    assert store.list(name_contains="GRÖSSE") == [named]
    assert store.list() == [unnamed, named]
    store.close()


def test_two_stores_have_two_identities(tmp_path: Path) -> None:
    stores = [Store.open(url_of(tmp_path / name), migrate=True) for name in ("a.sqlite", "b.sqlite")]
    assert stores[0].store_id != stores[1].store_id
    for store in stores:
        store.close()


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_many_may_migrate_at_once(backend: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = url_of(tmp_path / "s.sqlite") if backend == "sqlite" else request.getfixturevalue("empty_postgres")
    barrier = threading.Barrier(4)

    def migrate(_: int) -> str:
        barrier.wait()
        store = Store.open(url, migrate=True)
        store.close()
        return store.store_id

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(migrate, range(4)))) == 1


def test_a_migration_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = url_of(tmp_path / "s.sqlite")
    # Alembic loads the file by its path; the fault is put where the migration calls.
    from alembic import op

    real, calls = op.create_index, []

    def failing(*args: object, **kwargs: object) -> None:
        calls.append(args)
        raise RuntimeError("power cut")

    monkeypatch.setattr(op, "create_index", failing)
    with pytest.raises(RuntimeError, match="power cut"):
        Store.open(url, migrate=True)
    assert calls
    monkeypatch.setattr(op, "create_index", real)
    Store.open(url, migrate=True).close()


def test_a_store_that_was_not_migrated_is_refused_with_the_remedy(tmp_path: Path, empty_postgres: str) -> None:
    with pytest.raises(StoreError, match=r"no store at .*distox up"):
        Store.open(url_of(tmp_path / "none.sqlite"))
    assert not (tmp_path / "none.sqlite").exists()
    with pytest.raises(StoreError, match=f"at revision none and this distox needs {HEAD}"):
        Store.open(empty_postgres)


def test_a_store_of_a_newer_distox_is_refused(store_url: str) -> None:
    engine = create_engine(store_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    for migrate in (False, True):
        with pytest.raises(StoreError, match=r"newer than the .* install the newer distox"):
            Store.open(store_url, migrate=migrate)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", "no database URL"),
        ("mysql://x/y", "can't be kept in mysql"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("postgresql://nobody@/x?host=/nonexistent-folder", "running PostgreSQL"),
        ("postgresql+psycopg://u:secret@127.0.0.1:1/x", "running PostgreSQL"),
    ],
)
def test_a_url_that_can_not_be_used_is_answered_with_the_remedy(url: str, words: str) -> None:
    with pytest.raises(StoreError, match=words) as caught:
        Store.open(url, migrate=True)
    assert "secret" not in str(caught.value)


def test_a_folder_that_can_not_be_written_is_answered_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match=r"can't be made.*DISTOX_HOME"):
        Store.open(url_of(tmp_path / "file" / "store.sqlite"), migrate=True)
    # A folder that even root may not write in.
    with pytest.raises(StoreError, match="can't be"):
        Store.open("sqlite:////proc/self/store.sqlite", migrate=True)


def test_a_file_that_is_no_database_is_answered_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "store.sqlite").write_bytes(b"something else entirely, long enough to have a header" * 50)
    with pytest.raises(StoreError, match="not a database"):
        Store.open(url_of(tmp_path / "store.sqlite"))


def test_a_read_only_store_is_refused_at_the_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "store.sqlite"
    Store.open(url_of(path), migrate=True).close()
    # Root may write everywhere, so the database itself is asked to refuse.
    from cluster import database

    real = database._prepare_sqlite

    def prepare(connection: object, record: object) -> None:
        real(connection, record)
        connection.execute("PRAGMA query_only = ON")  # type: ignore[attr-defined]

    monkeypatch.setattr(database, "_prepare_sqlite", prepare)
    with pytest.raises(StoreError, match=r"readonly.*make the file and its folder writable"):
        Store.open(url_of(path))


def test_sqlite_is_durable_and_lets_readers_and_a_writer_work_side_by_side(tmp_path: Path) -> None:
    database = Database.open(url_of(tmp_path / "s.sqlite"), migrate=True)
    with database.read() as connection:
        pragmas = {
            name: connection.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
        # A reader's snapshot doesn't keep the writer out.
        connection.execute(text("SELECT * FROM meta")).all()
        with database.write() as writer:
            writer.execute(text("INSERT INTO meta VALUES ('a', 'b')"))
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 10_000}
    database.close()


def test_a_write_that_fails_is_rolled_back(store_url: str) -> None:
    database = Database.open(store_url, migrate=False)

    def write() -> None:
        with database.write() as connection:
            connection.execute(text("INSERT INTO meta VALUES ('a', 'b')"))
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        write()
    with database.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM meta WHERE key = 'a'")).scalar() == 0
    database.close()


def test_opening_a_store_loads_neither_torch_nor_ray_nor_alembic(tmp_path: Path) -> None:
    url = url_of(tmp_path / "s.sqlite")
    Store.open(url, migrate=True).close()
    code = (
        "import sys; from cluster.store import Store; import cluster.follow, cluster.reconciler, cluster.scheduler\n"
        f"Store.open({url!r}).list()\n"
        "print([name for name in ('torch', 'ray', 'alembic', 'redis', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
