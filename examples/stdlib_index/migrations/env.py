"""Alembic's environment: migrate on the connection that the program passes."""

from alembic import context

import oban_sqla.migrations  # noqa: F401 - gives `op` its operations upgrade_oban, downgrade_oban
from examples.stdlib_index.models import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
