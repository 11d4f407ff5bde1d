"""The example's own Alembic history, run on a connection that the program hands over."""

import oban_sqla.migrations  # noqa: F401 - gives `op` its operations upgrade_oban, downgrade_oban
from alembic import context
from examples.stdlib_index.models import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
