"""Alembic's environment. Here the metadata of the project contains the models of the jobs, too.

Nevertheless only `op.upgrade_oban()`, which autogenerate writes, changes their tables.
"""

from alembic import context

from examples.flask_app.database import DATABASE_URL, engine
from examples.flask_app.models import Base
from oban_sqla import models

target_metadata = [Base.metadata, models.metadata]


def run_offline() -> None:
    """Write the migrations as SQL."""
    context.configure(
        url=DATABASE_URL,
        target_metadata=target_metadata,
        literal_binds=True,
        dialect_opts={"paramstyle": "named"},
    )
    with context.begin_transaction():
        context.run_migrations()


def run_online() -> None:
    with engine.connect() as connection:
        context.configure(connection=connection, target_metadata=target_metadata)
        with context.begin_transaction():
            context.run_migrations()


if context.is_offline_mode():
    run_offline()
else:
    run_online()
