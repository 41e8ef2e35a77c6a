"""Alembic's entry: runs the changes on the connection that ``cluster.database`` opened, inside its transaction."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, transactional_ddl=True)
context.run_migrations()
