"""Engines for the tests, and a table of an application."""

from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


def sync_engine(dsn: str, prefix: str, driver: str = "psycopg", **options: object) -> Engine:
    """A sync engine that finds the tables in `prefix`, by search path and by translation map."""
    url = make_url(dsn).set(drivername=f"postgresql+{driver}")
    return create_engine(url, execution_options={"schema_translate_map": {None: prefix}}, **options)


def async_engine(dsn: str, prefix: str, driver: str = "psycopg", **options: object) -> AsyncEngine:
    """An async engine that finds the tables in `prefix`."""
    url = make_url(dsn).set(drivername=f"postgresql+{driver}")
    return create_async_engine(
        url, execution_options={"schema_translate_map": {None: prefix}}, **options
    )
