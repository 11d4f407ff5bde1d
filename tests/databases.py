"""Engines for the tests, and a table of an application."""

from functools import lru_cache

from sqlalchemy import URL, Engine, create_engine, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.util import LRUCache


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


def sync_engine(dsn: str, prefix: str, driver: str = "psycopg", **options: object) -> Engine:
    """A sync engine that finds the tables in `prefix`, by search path and by translation map."""
    url = make_url(dsn).set(drivername=f"postgresql+{driver}")
    if not options:
        return _sharing(*_shared(url, False), prefix)
    return create_engine(url, execution_options={"schema_translate_map": {None: prefix}}, **options)


def async_engine(dsn: str, prefix: str, driver: str = "psycopg", **options: object) -> AsyncEngine:
    """An async engine that finds the tables in `prefix`."""
    url = make_url(dsn).set(drivername=f"postgresql+{driver}")
    if not options:
        return AsyncEngine(_sharing(*_shared(url, True), prefix))
    return create_async_engine(
        url, execution_options={"schema_translate_map": {None: prefix}}, **options
    )


@lru_cache(maxsize=32)
def _shared(url: URL, is_async: bool) -> tuple[Engine, LRUCache[object, object]]:
    """An engine that never connects, and a cache for statements that its dialect compiled."""
    engine = create_async_engine(url).sync_engine if is_async else create_engine(url)
    return engine, LRUCache(1000)


def _sharing(shared: Engine, compiled: LRUCache[object, object], prefix: str) -> Engine:
    # A pool for each test, but one dialect: a third of a test's time went into compiling the same
    # statements again.
    return Engine(
        shared.pool.recreate(),
        shared.dialect,
        shared.url,
        execution_options={
            "schema_translate_map": {None: prefix},
            "compiled_cache": compiled,
        },
    )
