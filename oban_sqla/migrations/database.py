"""Which database to migrate: from a DSN as people write it to a synchronous engine."""

from sqlalchemy import URL, Engine, NullPool, create_engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

_PSYCOPG = "postgresql+psycopg"
# The bare forms are libpq's. asyncpg can't serve a synchronous engine; psycopg, which can, is here.
_TO_PSYCOPG = {"postgres", "postgresql", "postgresql+asyncpg"}


def engine_for(dsn: str) -> Engine:
    """An engine that keeps no connections; `ValueError` when the DSN is not one of PostgreSQL."""
    try:
        return create_engine(_url(dsn), poolclass=NullPool)
    except (NoSuchModuleError, ImportError) as error:
        raise ValueError(f"the DSN names a driver that is not installed: {error}") from error


def _url(dsn: str) -> URL:
    try:
        url = make_url(dsn)
    except (ArgumentError, ValueError):
        # Not quoted here: it may hold a password.
        raise ValueError(
            "the DSN is not a URL of the form postgresql://user:password@host:5432/database"
        ) from None
    if url.drivername in _TO_PSYCOPG:
        url = url.set(drivername=_PSYCOPG)
    if url.get_backend_name() != "postgresql":
        raise ValueError(f"the DSN must start with postgresql://, not {url.drivername}://")
    return url
