"""Make a synchronous engine for migrations from a DSN."""

from sqlalchemy import Engine, NullPool, create_engine
from sqlalchemy.exc import NoSuchModuleError

from ..dsn import connect_arguments, database_url


def engine_for(dsn: str) -> Engine:
    """An engine without a pool; `ValueError` if the DSN is not for PostgreSQL."""
    url = database_url(dsn)
    if url.drivername == "postgresql+asyncpg":
        # A synchronous engine can't use asyncpg. psycopg is always installed.
        url = url.set(drivername="postgresql+psycopg")
    url, arguments = connect_arguments(url)
    try:
        return create_engine(url, connect_args=arguments, poolclass=NullPool)
    except (NoSuchModuleError, ImportError) as error:
        raise ValueError(f"the DSN names a driver that is not installed: {error}") from error
