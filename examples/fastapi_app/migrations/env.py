"""Alembic's environment. Alembic finds the plugin for the tables of the jobs by itself."""

from alembic import context
from sqlalchemy import NullPool, create_engine

from examples.fastapi_app.models import Base
from examples.fastapi_app.settings import settings


def run_offline() -> None:
    """Write the migrations as SQL."""
    context.configure(
        url=settings.database_url,
        target_metadata=Base.metadata,
        literal_binds=True,
        dialect_opts={"paramstyle": "named"},
    )
    with context.begin_transaction():
        context.run_migrations()


def run_online() -> None:
    """Run the migrations. The URL of psycopg also works for a synchronous engine."""
    engine = create_engine(settings.database_url, poolclass=NullPool)
    with engine.connect() as connection:
        context.configure(connection=connection, target_metadata=Base.metadata)
        with context.begin_transaction():
            context.run_migrations()


if context.is_offline_mode():
    run_offline()
else:
    run_online()
