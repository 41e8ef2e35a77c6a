"""Keys of the API in the store, on SQLite and on PostgreSQL."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import select

from cluster.store import Store
from cluster.tables import api_keys


def test_a_key_is_found_by_its_plain_text_only_and_not_after_it_was_revoked(store: Store) -> None:
    plain = store.create_key("ann", "admin", "laptop")
    key = store.find_key(plain)
    assert key is not None
    assert (key.owner, key.role, key.name, key.revoked_at) == ("ann", "admin", "laptop", None)
    for wrong in (plain[:-1], plain + "x", f"dx_{key.prefix}_", "", "dx", "dx_%_x", plain.upper(), "ä_ö_ü"):
        assert store.find_key(wrong) is None
    assert store.revoke_key(key.prefix)
    assert store.find_key(plain) is None
    assert not store.revoke_key("unknown")
    stored = store.keys()
    assert [item.prefix for item in stored] == [key.prefix]


def test_the_plain_key_is_not_stored(store: Store) -> None:
    secret = store.create_key("ann", "admin", "laptop").split("_", 2)[2]
    with store._database.read() as connection:
        (row,) = connection.execute(select(api_keys)).all()
    assert secret not in str(row)


def test_the_files_of_the_store_hold_no_plain_key(sqlite_store: Store, tmp_path: Path) -> None:
    secret = sqlite_store.create_key("ann", "admin", "laptop").split("_", 2)[2].encode()
    sqlite_store.close()
    files = list(tmp_path.glob("store.sqlite*"))
    assert files
    for file in files:
        assert secret not in file.read_bytes()
