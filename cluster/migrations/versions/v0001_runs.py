"""Runs, their metrics, artifacts and events, and the keys of the API."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "meta", sa.Column("key", sa.String(40), primary_key=True), sa.Column("value", sa.Text, nullable=False)
    )
    _create_runs()
    _create_results()
    op.create_table(
        "api_keys",
        sa.Column("prefix", sa.String(16), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("owner", sa.String(100), nullable=False),
        sa.Column("role", sa.String(20), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("revoked_at", MOMENT),
    )


def _create_runs() -> None:
    op.create_table(
        "runs",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("name", sa.String(200)),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("owner", sa.String(100), nullable=False),
        sa.Column("state", sa.String(12), nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("spec", sa.JSON, nullable=False),
        sa.Column("parent", sa.String(32), sa.ForeignKey("runs.id")),
        sa.Column("step", sa.String(60)),
        sa.Column("submission_id", sa.String(200)),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("started_at", MOMENT),
        sa.Column("finished_at", MOMENT),
        sa.Column("state_at", MOMENT, nullable=False),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("heartbeat_at", MOMENT),
        sa.Column("progress", sa.JSON, nullable=False),
        sa.Column("errors", sa.Integer, nullable=False),
        sa.Column("lost", sa.Integer, nullable=False),
        sa.Column("output", sa.Text),
        sa.UniqueConstraint("owner", "submission_id", name="one_run_for_a_submission"),
        sa.UniqueConstraint("parent", "step", name="one_run_for_a_step"),
    )
    op.create_index("runs_by_state", "runs", ["state", "id"])
    op.create_index("runs_by_owner", "runs", ["owner", "id"])


def _create_results() -> None:
    run_id = ("run_id", sa.String(32))
    op.create_table(
        "points",
        sa.Column(*run_id, sa.ForeignKey("runs.id"), primary_key=True),
        sa.Column("epoch", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(100), primary_key=True),
        sa.Column("step", sa.Integer, primary_key=True),
        sa.Column("value", sa.Float),
    )
    op.create_table(
        "summaries",
        sa.Column(*run_id, sa.ForeignKey("runs.id"), primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True),
        sa.Column("metric", sa.String(100), nullable=False),
        sa.Column("system", sa.String(100), nullable=False),
        sa.Column("value", sa.Float),
        sa.Column("low", sa.Float),
        sa.Column("high", sa.Float),
        sa.Column("count", sa.Integer),
    )
    op.create_table(
        "artifacts",
        sa.Column(*run_id, sa.ForeignKey("runs.id"), primary_key=True),
        sa.Column("name", sa.String(100), primary_key=True),
        sa.Column("path", sa.Text, nullable=False),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column(*run_id, sa.ForeignKey("runs.id"), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("state", sa.String(12), nullable=False),
        sa.Column("message", sa.Text),
    )
    op.create_index("events_by_run", "events", ["run_id", "id"])
