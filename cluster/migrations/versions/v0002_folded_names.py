"""Names of runs as they are searched: without case, the same on every database."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column and fill it for the runs that there are."""
    op.add_column("runs", sa.Column("folded_name", sa.Text))
    runs = sa.table("runs", sa.column("id", sa.String), sa.column("name", sa.String), sa.column("folded_name", sa.Text))
    connection = op.get_bind()
    named = connection.execute(sa.select(runs.c.id, runs.c.name).where(runs.c.name.is_not(None))).all()
    for row in named:
        folded = runs.update().where(runs.c.id == row.id).values(folded_name=row.name.casefold())
        connection.execute(folded)
