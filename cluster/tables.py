"""The results store's tables, as the newest migration leaves them."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)


class Moment(TypeDecorator[datetime]):
    """An aware UTC time; SQLite, which has no time zones, keeps it as UTC without one."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To UTC; a time without a zone is a bug of the caller."""
        if value is None:
            return None
        assert value.tzinfo is not None, "a time without a zone"
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To aware UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData()

meta = Table("meta", metadata, Column("key", String(40), primary_key=True), Column("value", Text, nullable=False))
"""Facts about the store itself: ``store_id``."""

runs = Table(
    "runs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(200)),
    Column("kind", String(20), nullable=False),
    Column("owner", String(100), nullable=False),
    Column("state", String(12), nullable=False),
    Column("reason", Text),
    # JSON, not JSONB: the order of steps and systems is the order of tables that people read.
    Column("spec", JSON, nullable=False),
    Column("parent", String(32), ForeignKey("runs.id")),
    Column("step", String(60)),
    Column("submission_id", String(200)),
    Column("epoch", Integer, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("started_at", Moment),
    Column("finished_at", Moment),
    Column("state_at", Moment, nullable=False),
    Column("cancel_requested", Boolean, nullable=False),
    Column("heartbeat_at", Moment),
    Column("progress", JSON, nullable=False),
    Column("errors", Integer, nullable=False),
    Column("lost", Integer, nullable=False),
    Column("output", Text),
    Column("retry_at", Moment),
    # What a search for a part of the name looks at: databases don't agree on what a letter's case is.
    Column("folded_name", Text),
    UniqueConstraint("owner", "submission_id", name="one_run_for_a_submission"),
    UniqueConstraint("parent", "step", name="one_run_for_a_step"),
    Index("runs_by_state", "state", "id"),
    Index("runs_by_owner", "owner", "id"),
)

points = Table(
    "points",
    metadata,
    Column("run_id", ForeignKey("runs.id"), primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("name", String(100), primary_key=True),
    Column("step", Integer, primary_key=True),
    # NULL means not a number: SQLite keeps NaN so.
    Column("value", Float),
)
"""Live metrics of each attempt."""

summaries = Table(
    "summaries",
    metadata,
    Column("run_id", ForeignKey("runs.id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("metric", String(100), nullable=False),
    Column("system", String(100), nullable=False),
    Column("value", Float),
    Column("low", Float),
    Column("high", Float),
    Column("count", Integer),
)
"""Final figures, in the order of the job."""

artifacts = Table(
    "artifacts",
    metadata,
    Column("run_id", ForeignKey("runs.id"), primary_key=True),
    Column("name", String(100), primary_key=True),
    Column("path", Text, nullable=False),
)
"""Artifact → its path relative to the run's output."""

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("run_id", ForeignKey("runs.id"), nullable=False),
    Column("at", Moment, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("state", String(12), nullable=False),
    Column("message", Text),
    Index("events_by_run", "run_id", "id"),
)
"""Every change of state, and what was said with it."""

api_keys = Table(
    "api_keys",
    metadata,
    Column("prefix", String(16), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("owner", String(100), nullable=False),
    Column("role", String(20), nullable=False),
    Column("name", String(200), nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("revoked_at", Moment),
)
"""Keys of the API: what is stored can't be used as one."""
