"""The fixtures of all tests. One PostgreSQL serves the whole run, also with pytest-xdist."""

import asyncio
import gc
import logging
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import AsyncExitStack
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import pytest
from hypothesis import settings
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

from oban_sqla import Job, Oban, instances
from oban_sqla.contrib import opentelemetry, prometheus, sentry
from oban_sqla.embedded import embedded_postgres
from oban_sqla.enqueue.observed import is_observed
from oban_sqla.on_change import enqueue_changes
from oban_sqla.runtime.group_commit import LINGER
from oban_sqla.workers import registry
from tests.database_pool import DatabasePool
from tests.databases import async_engine, sync_engine
from tests.enqueue.conn_kinds import ConnKind, opened
from tests.forked import Python
from tests.schemas import Schemas

StartOban = Callable[..., Awaitable[Oban]]
Add = Callable[..., Awaitable[list[int]]]
Tune = Callable[..., None]

_ended = count(1)

# Modules and tests live until the end. Garbage collection while they are imported and collected
# frees nothing, and takes a quarter of that time.
gc.disable()


# The profile `default` of Hypothesis makes a hundred examples.
settings.register_profile("few", max_examples=25)
settings.load_profile("few")


def pytest_configure(config: pytest.Config) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    # Not pytest's tmp_path: a later run removes permissions that the server's user needs.
    directory = tempfile.mkdtemp(prefix="oban-tests-")
    os.environ["OBAN_TEST_DIRECTORY"] = directory  # the workers of pytest-xdist inherit it
    config.add_cleanup(lambda: shutil.rmtree(directory, ignore_errors=True))


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """Start one worker more than there are processors, since some tests wait for a timer."""
    return (yield) + 1


def pytest_collection_finish() -> None:
    # With the default thresholds, an eighth of the run would be garbage collection.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
    gc.enable()


def pytest_runtest_logfinish() -> None:
    # Objects that outlive many tests, such as compiled statements, are excluded as well.
    if next(_ended) % 250 == 0:
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="session")
def postgres_dsn() -> Iterator[str]:
    """The PostgreSQL of the run: OBAN_TEST_DSN, or an embedded one of the version
    OBAN_TEST_POSTGRES.
    """
    if dsn := os.environ.get("OBAN_TEST_DSN"):
        yield dsn
        return
    with embedded_postgres(
        Path(os.environ["OBAN_TEST_DIRECTORY"], "postgres"),
        version=int(os.environ.get("OBAN_TEST_POSTGRES", "18")),  # type: ignore[arg-type]
        settings={
            "max_connections": 400,
            "max_prepared_transactions": 50,
            "fsync": "off",
            "full_page_writes": "off",
            "synchronous_commit": "off",
            "lock_timeout": "60s",  # a lock that a test leaves fails the next test
        },
    ) as dsn:
        yield dsn


@pytest.fixture(scope="session")
def python() -> Iterator[Python]:
    """Start Python processes quickly, with the usual modules imported."""
    python = Python()
    yield python
    python.close()


@pytest.fixture(scope="session")
def databases(postgres_dsn: str) -> Iterator[DatabasePool]:
    """The databases that the tests of this process use in turn."""
    databases = DatabasePool(postgres_dsn)
    yield databases
    databases.close()


@pytest.fixture
def database_dsn(databases: DatabasePool) -> Iterator[str]:
    """An empty database for this test alone."""
    dsn = databases.take()
    yield dsn
    databases.give_back(dsn)


@pytest.fixture(scope="session")
def schemas(postgres_dsn: str) -> Iterator[Schemas]:
    """The schemas that the tests of this process use in turn."""
    schemas = Schemas(postgres_dsn)
    yield schemas
    schemas.close()


@pytest.fixture
def prefix(schemas: Schemas) -> Iterator[str]:
    """An empty schema with our tables, for this test alone. NOTIFY channels are per schema."""
    name = schemas.take()
    yield name
    schemas.give_back(name)


@pytest.fixture
def new_schema(schemas: Schemas) -> Iterator[str]:
    """A schema that no test has used, for plans: statistics and dead rows lead to other plans."""
    name = schemas.install()
    yield name
    schemas.give_back(name)


@pytest.fixture
async def engine(postgres_dsn: str, prefix: str) -> AsyncIterator[AsyncEngine]:
    """An async engine on psycopg that finds all tables, the test's own too, in `prefix`."""
    engine = async_engine(postgres_dsn, prefix)
    yield engine
    await engine.dispose()


@pytest.fixture(params=["psycopg", "asyncpg"])
async def each_engine(
    request: pytest.FixtureRequest, postgres_dsn: str, prefix: str
) -> AsyncIterator[AsyncEngine]:
    """`engine`, on one async driver after the other."""
    engine = async_engine(postgres_dsn, prefix, request.param)
    yield engine
    await engine.dispose()


@pytest.fixture
async def kind(
    request: pytest.FixtureRequest, postgres_dsn: str, prefix: str
) -> AsyncIterator[ConnKind]:
    """A `conn` of the kind whose name is the parameter."""
    async with opened(request.param, postgres_dsn, prefix) as kind:
        yield kind


@pytest.fixture
def sessions(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    return async_sessionmaker(engine, expire_on_commit=False)


@pytest.fixture
def add(sessions: async_sessionmaker[AsyncSession]) -> Add:
    """Commit jobs, and return their ids."""

    async def add(*jobs: Job) -> list[int]:
        async with sessions.begin() as session:
            session.add_all(jobs)
            await session.flush()
            return [job.id for job in jobs]

    return add


@pytest.fixture
def session_factory(postgres_dsn: str, prefix: str) -> Iterator[sessionmaker[Session]]:
    """Sync sessions on psycopg."""
    engine = sync_engine(postgres_dsn, prefix)
    yield sessionmaker(engine, expire_on_commit=False)
    engine.dispose()


@pytest.fixture
def tune(monkeypatch: pytest.MonkeyPatch) -> Tune:
    """Give constants of a module or a class other values for one test: `tune(outbox, FULL=1)`."""

    def tune(of: Any, **constants: Any) -> None:
        if isinstance(of, str):
            of = import_module(of)
        for name, value in constants.items():
            assert not callable(getattr(of, name)), f"{name} is no constant"
            monkeypatch.setattr(of, name, value)

    return tune


@pytest.fixture
async def start(engine: AsyncEngine) -> AsyncIterator[StartOban]:
    """Start instances that are stopped at the end: `oban = await start(queues={"default": 10})`."""
    async with AsyncExitStack() as stack:

        async def start(given: Any = None, **options: Any) -> Oban:
            options.setdefault("shutdown_grace_period", 1.0)
            oban = Oban(engine if given is None else given, **options)
            return await stack.enter_async_context(oban)

        yield start


@pytest.fixture(autouse=True)
def no_instances(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the instances of other tests, which live until they are garbage-collected."""
    monkeypatch.setattr(instances, "_instances", WeakValueDictionary())


@pytest.fixture(autouse=True)
async def quiet(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    """Prove that a test leaves no task behind, and logs no error that it does not expect.

    A test that expects errors takes them away with `caplog.clear()`.
    """
    before = asyncio.all_tasks()
    yield
    # An instance that was not stopped keeps its connection for a moment after many calls.
    if kept := [task for task in asyncio.all_tasks() if task.get_name() == "oban-enqueue"]:
        await asyncio.wait(kept, timeout=20 * LINGER)
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left, f"left behind: {left}"
    errors = [record for record in caplog.get_records("call") if record.levelno >= logging.ERROR]
    assert not errors, [record.getMessage() for record in errors]


@pytest.fixture(autouse=True)
def known_workers(request: pytest.FixtureRequest) -> Iterator[None]:
    """Forget the workers and reactions that a test declared, so that others may use their names.

    The limited workers of other modules are unknown, since the claims of their queues differ.
    """
    before, reactions = dict(registry._registrations), dict(enqueue_changes._reactions)
    for name, known in before.items():
        limited = known.declaration.limit is not None or known.declaration.rate is not None
        if limited and not known.declaration.origin.startswith(f"{request.module.__name__}."):
            del registry._registrations[name]
    yield
    for known_now, known_before in (
        (registry._registrations, before),
        (enqueue_changes._reactions, reactions),
    ):
        known_now.clear()
        known_now.update(known_before)


@pytest.fixture
def no_workers(known_workers: None) -> None:
    """Forget all workers except those of the test: others have cron entries and reactions."""
    registry._registrations.clear()
    enqueue_changes._reactions.clear()


@pytest.fixture(autouse=True)
def untold() -> Iterator[None]:
    """Detach the telemetry that a test attached, and prove that no other listener is left."""
    yield
    if is_observed():
        for contrib in (opentelemetry, prometheus, sentry):
            contrib.detach()
        assert not is_observed(), "the test left a listener to the events of enqueueing"


@pytest.fixture
def expect_errors(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Allow the test to cause errors, which services log."""
    yield
    records = caplog.get_records("call")
    records[:] = [record for record in records if not record.name.startswith("oban_sqla")]
