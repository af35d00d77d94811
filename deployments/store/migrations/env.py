"""Run by Alembic: the steps run on the connection, and in the transaction, that `Database.migrate` gives."""

from alembic import context

from deployments.store.tables import SCHEMA_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, version_table=SCHEMA_TABLE
)
with context.begin_transaction():
    context.run_migrations()
