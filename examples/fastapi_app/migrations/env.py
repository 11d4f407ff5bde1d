"""Alembic's environment. The tables of the jobs need nothing here: Alembic finds their plugin."""

from alembic import context
from sqlalchemy import NullPool, create_engine

from examples.fastapi_app.models import Base
from examples.fastapi_app.settings import settings


def run_offline() -> None:
    """Write the SQL, for somebody else to run."""
    context.configure(
        url=settings.database_url,
        target_metadata=Base.metadata,
        literal_binds=True,
        dialect_opts={"paramstyle": "named"},
    )
    with context.begin_transaction():
        context.run_migrations()


def run_online() -> None:
    """Run it; psycopg's URL serves a synchronous engine, too."""
    engine = create_engine(settings.database_url, poolclass=NullPool)
    with engine.connect() as connection:
        context.configure(connection=connection, target_metadata=Base.metadata)
        with context.begin_transaction():
            context.run_migrations()


if context.is_offline_mode():
    run_offline()
else:
    run_online()
