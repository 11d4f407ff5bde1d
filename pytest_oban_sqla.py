"""The fixtures of oban_sqla for pytest: a PostgreSQL, a schema, a session, an `Oban`.

pytest loads this plugin in every project that has oban_sqla installed. So it is a module outside
of the package, and imports the package only for a test that uses a fixture.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from sqlalchemy import MetaData
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

    from oban_sqla import Oban

NAMES = ("oban_sqla", "pytest_oban_sqla")
"""The names of the plugin: the entry point, and the module for `pytest_plugins` and `-p`."""

DSN = "OBAN_TEST_DSN"
DIRECTORY = "OBAN_TEST_POSTGRES_DIRECTORY"


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Register both names of the plugin: pytest refuses to load a module under a second name."""
    for name in NAMES:
        if not pluginmanager.has_plugin(name):
            pluginmanager.register(object(), name)


def pytest_configure(config: pytest.Config) -> None:
    """Choose the directory of the server; workers of pytest-xdist inherit the variable."""
    if not hasattr(config, "workerinput") and DIRECTORY not in os.environ:
        # Not in pytest's own directory: a later run of pytest removes permissions there that the
        # server's user needs.
        directory = Path(tempfile.gettempdir(), f"oban-sqla-pytest-{uuid4().hex[:12]}")
        os.environ[DIRECTORY] = str(directory)

        def clean_up() -> None:
            del os.environ[DIRECTORY]
            shutil.rmtree(directory, ignore_errors=True)

        config.add_cleanup(clean_up)
    _register_async_fixtures(config)


def _register_async_fixtures(config: pytest.Config) -> None:
    # Called when all plugins are loaded. Without pytest-asyncio, another plugin, such as anyio's,
    # runs async fixtures.
    asyncio_plugin = sys.modules.get("pytest_asyncio")
    fixture = pytest.fixture if asyncio_plugin is None else asyncio_plugin.fixture
    holder = ModuleType("pytest_oban_sqla.async_fixtures")
    holder.__dict__["oban_session"] = fixture(oban_session)
    config.pluginmanager.register(holder, holder.__name__)


@pytest.fixture(scope="session")
def oban_postgres() -> Iterator[str]:
    """The DSN of a PostgreSQL for the test run: `OBAN_TEST_DSN`, or an embedded server.

    The embedded server needs the extra `testing`. The first test that uses it starts it, all
    workers of pytest-xdist share it, and it is removed at the end. Its data does not survive a
    crash of the machine.
    """
    if dsn := os.environ.get(DSN):
        yield dsn
        return
    from oban_sqla.embedded import embedded_postgres

    directory = Path(os.environ[DIRECTORY])
    directory.mkdir(exist_ok=True)
    unsafe = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
    with embedded_postgres(directory / "postgres", settings=unsafe) as dsn:
        yield dsn


@pytest.fixture
def oban_schema(oban_postgres: str) -> Iterator[str]:
    """The name of a new schema with the empty tables of oban_sqla. It is dropped after the test."""
    from sqlalchemy import create_engine, make_url
    from sqlalchemy.pool import NullPool
    from sqlalchemy.schema import DropSchema

    from oban_sqla.migrations import upgrade

    name = f"oban_test_{uuid4().hex[:12]}"
    url = make_url(oban_postgres).set(drivername="postgresql+psycopg")
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        upgrade(connection, prefix=name)
    yield name
    with engine.begin() as connection:
        connection.execute(DropSchema(name, cascade=True))


@pytest.fixture
def oban(oban_postgres: str, oban_schema: str) -> Oban:
    """An `Oban` in `oban_schema` with a queue `default`, not started.

    Run jobs with `async with oban:`, or with `drain_queue(oban)`, which needs no start.
    """
    from sqlalchemy import make_url
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    from oban_sqla import Oban

    url = make_url(oban_postgres).set(drivername="postgresql+psycopg")
    # Without a pool, no connection outlives the event loop of the test.
    engine = create_async_engine(url, poolclass=NullPool)
    return Oban(engine, prefix=oban_schema, queues={"default": 10})


@pytest.fixture
def oban_metadata() -> MetaData | Iterable[MetaData]:
    """Your tables, for `oban_session`. Override this fixture, and return `Base.metadata`."""
    return ()


async def oban_session(
    oban_postgres: str, oban_schema: str, oban_metadata: MetaData | Iterable[MetaData]
) -> AsyncIterator[AsyncSession]:
    """An `AsyncSession` with the tables of oban_sqla and yours. Everything is rolled back.

    A commit in the test only releases a savepoint. The fixture needs pytest-asyncio, or another
    plugin that runs async fixtures.
    """
    from sqlalchemy import make_url
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
    from sqlalchemy.pool import NullPool

    url = make_url(oban_postgres).set(drivername="postgresql+psycopg")
    schemas = {"schema_translate_map": {None: oban_schema}}
    engine = create_async_engine(url, execution_options=schemas, poolclass=NullPool)
    async with engine.connect() as connection, connection.begin() as outer:
        for metadata in _each(oban_metadata):
            await connection.run_sync(metadata.create_all)
        async with AsyncSession(
            connection, join_transaction_mode="create_savepoint", expire_on_commit=False
        ) as session:
            yield session
        await outer.rollback()


@pytest.fixture
def oban_sync_session(
    oban_postgres: str, oban_schema: str, oban_metadata: MetaData | Iterable[MetaData]
) -> Iterator[Session]:
    """`oban_session` as a sync `Session`."""
    from sqlalchemy import create_engine, make_url
    from sqlalchemy.orm import Session
    from sqlalchemy.pool import NullPool

    url = make_url(oban_postgres).set(drivername="postgresql+psycopg")
    schemas = {"schema_translate_map": {None: oban_schema}}
    engine = create_engine(url, execution_options=schemas, poolclass=NullPool)
    with engine.connect() as connection, connection.begin() as outer:
        for metadata in _each(oban_metadata):
            metadata.create_all(connection)
        with Session(
            connection, join_transaction_mode="create_savepoint", expire_on_commit=False
        ) as session:
            yield session
        outer.rollback()


def _each(given: MetaData | Iterable[MetaData]) -> Iterable[MetaData]:
    from sqlalchemy import MetaData

    return [given] if isinstance(given, MetaData) else given
