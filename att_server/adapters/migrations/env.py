"""What Alembic runs to migrate: everything in the transaction of the given connection."""

from alembic import context

from att_server.adapters.state_schema import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    transactional_ddl=True,
)
context.run_migrations()
