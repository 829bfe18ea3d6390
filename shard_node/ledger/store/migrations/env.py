"""Alembic's entry point: runs the steps on the connection that :func:`..upgrade` hands over."""

from alembic import context

from shard_node.ledger.store import metadata
from shard_node.ledger.store.migrations import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
)
# The caller's transaction is around it: all steps are done, or none.
context.run_migrations()
