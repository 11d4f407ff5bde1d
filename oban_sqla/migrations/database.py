"""Which database to migrate: from a DSN as people write it to a synchronous engine."""

from sqlalchemy import Engine, NullPool, create_engine
from sqlalchemy.exc import NoSuchModuleError

from ..dsn import connect_arguments, database_url


def engine_for(dsn: str) -> Engine:
    """An engine that keeps no connections; `ValueError` when the DSN is not one of PostgreSQL."""
    url = database_url(dsn)
    if url.drivername == "postgresql+asyncpg":
        # It can't serve a synchronous engine; psycopg, which can, is here.
        url = url.set(drivername="postgresql+psycopg")
    url, arguments = connect_arguments(url)
    try:
        return create_engine(url, connect_args=arguments, poolclass=NullPool)
    except (NoSuchModuleError, ImportError) as error:
        raise ValueError(f"the DSN names a driver that is not installed: {error}") from error
