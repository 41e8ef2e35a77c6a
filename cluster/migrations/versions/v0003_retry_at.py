"""When a run whose attempt has failed may be tried again."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; for a run that waits already the coordinator draws a time."""
    op.add_column("runs", sa.Column("retry_at", sa.DateTime(timezone=True)))
