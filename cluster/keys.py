"""Keys of the API: made once, shown once, stored as a digest.

A key is ``dx_{prefix}_{secret}``; the prefix names it in lists, the secret has 256 bits, so a plain SHA-256 of it can't
be guessed back. Functions run inside the caller's transaction.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, insert, select, update

from cluster.tables import api_keys


@dataclass(frozen=True)
class ApiKey:
    """A stored key, without its secret."""

    prefix: str
    owner: str
    role: str
    name: str
    created_at: datetime
    revoked_at: datetime | None


def create(connection: Connection, *, owner: str, role: str, name: str, now: datetime) -> str:
    """Store a new key and return it in plain; it can't be had again."""
    prefix, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
    plain = f"dx_{prefix}_{secret}"
    values = {"prefix": prefix, "digest": _digest(plain), "owner": owner, "role": role, "name": name}
    connection.execute(insert(api_keys).values(**values, created_at=now))
    return plain


def find(connection: Connection, plain: str) -> ApiKey | None:
    """The key that ``plain`` is; None for an unknown, malformed or revoked one."""
    parts = plain.split("_", 2)
    if len(parts) != 3 or parts[0] != "dx" or not parts[1].isalnum() or not parts[1].isascii():
        return None
    row = connection.execute(select(api_keys).where(api_keys.c.prefix == parts[1])).one_or_none()
    if row is None or row.revoked_at is not None or not hmac.compare_digest(row.digest, _digest(plain)):
        return None
    return _key(row)


def listed(connection: Connection) -> list[ApiKey]:
    """All keys, revoked ones too, oldest first."""
    return [_key(row) for row in connection.execute(select(api_keys).order_by(api_keys.c.created_at))]


def revoke(connection: Connection, prefix: str, *, now: datetime) -> bool:
    """Make a key useless; whether it was known. Revoking twice keeps the first time."""
    statement = update(api_keys).where(api_keys.c.prefix == prefix, api_keys.c.revoked_at.is_(None))
    connection.execute(statement.values(revoked_at=now))
    return connection.execute(select(api_keys.c.prefix).where(api_keys.c.prefix == prefix)).first() is not None


def _digest(plain: str) -> str:
    return hashlib.sha256(plain.encode()).hexdigest()


def _key(row: object) -> ApiKey:
    names = ("prefix", "owner", "role", "name", "created_at", "revoked_at")
    return ApiKey(**{name: getattr(row, name) for name in names})
