"""Alembic's environment, of a project that has the jobs' models among its own: that is fine, too.

Their tables are changed by `op.upgrade_oban()` alone, which autogenerate writes.
"""

from alembic import context

from examples.flask_app.database import DATABASE_URL, engine
from examples.flask_app.models import Base
from oban_sqla import models

target_metadata = [Base.metadata, models.metadata]


def run_offline() -> None:
    """Write the SQL, for somebody else to run."""
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
