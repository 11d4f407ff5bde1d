"""Fixtures of the tests of the services."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import make_url, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from oban_sqla import Job, JobState
from oban_sqla.dsn import database_url
from oban_sqla.runtime import running_jobs
from oban_sqla.runtime import service as service_module
from oban_sqla.runtime.database import Database
from oban_sqla.runtime.raw_statement import RawStatement
from tests.conftest import StartOban, Tune
from tests.listening import PATIENCE
from tests.proxy import Proxy
from tests.runtime.workers import Blocking, Held, Quick

Refuse = Callable[..., Awaitable[None]]
NoteFetch = Callable[[RawStatement, Mapping[str, Any]], None]
NoteFetches = Callable[..., None]
Rows = Callable[[], Awaitable[list[tuple[JobState, int]]]]


@pytest.fixture
async def proxy(postgres_dsn: str) -> AsyncIterator[Proxy]:
    """A proxy between a test and the server; give an instance `proxy.dsn`."""
    async with Proxy(postgres_dsn) as proxy:
        yield proxy


@pytest.fixture(params=["psycopg", "asyncpg"])
async def any_database(
    request: pytest.FixtureRequest, postgres_dsn: str, prefix: str
) -> AsyncIterator[Database]:
    """A database with an engine of each driver."""
    if request.param == "asyncpg":
        pytest.importorskip("asyncpg")
    url = make_url(database_url(postgres_dsn)).set(drivername=f"postgresql+{request.param}")
    database = Database(url, prefix)
    yield database
    await database.dispose()


@pytest.fixture
async def database(engine: AsyncEngine, prefix: str) -> AsyncIterator[Database]:
    """A database that keeps connections, like that of a running node."""
    database = Database(engine, prefix)
    database.keep_connections()
    yield database
    await database.release_connections()


@pytest.fixture
def quick(tune: Tune) -> None:
    """Shorten the delays of retries and of unwinding."""
    tune(service_module, FIRST_RETRY=0.01, LONGEST_RETRY=0.05, GRACE=0.5, UNWINDING=0.05)
    tune(running_jobs, UNWINDING=0.05)


class Clock:
    """A monotonic clock that a test sets forward."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[ModuleType], Clock]:
    """Give a module a monotonic clock of its own: `clock = clock_of(leader)`."""

    def clock_of(module: ModuleType) -> Clock:
        clock = Clock()
        monkeypatch.setattr(module, "time", clock)
        return clock

    return clock_of


@pytest.fixture
def note_fetches(monkeypatch: pytest.MonkeyPatch) -> NoteFetches:
    """Call functions before and after a node sends each claim and each write of outcomes."""
    fetch = RawStatement.fetch

    def note_fetches(before: NoteFetch, after: Callable[[], None] | None = None) -> None:
        async def noted(self: RawStatement, params: Mapping[str, Any]) -> Sequence[Any]:
            if "batch" in params:
                return await fetch(self, params)  # the stager's
            before(self, params)
            rows = await fetch(self, params)
            if after is not None:
                after()
            return rows

        monkeypatch.setattr(RawStatement, "fetch", noted)

    return note_fetches


@pytest.fixture(autouse=True)
def workers() -> Iterator[None]:
    """The workers of the tests, before their first run."""
    Quick.ran.clear()
    Held.reset()
    Blocking.released = threading.Event()
    yield
    Held.release()
    Blocking.released.set()


@pytest.fixture
async def start(start: StartOban) -> AsyncIterator[StartOban]:
    """`start`, with instances that don't wait at their end for jobs that the test holds."""
    yield start
    Held.release()


@pytest.fixture
def rows(sessions: async_sessionmaker[AsyncSession]) -> Rows:
    """The state and attempt of each job, by id."""

    async def rows() -> list[tuple[JobState, int]]:
        async with sessions() as session:
            query = select(Job.state, Job.attempt).order_by(Job.id)
            return [(state, attempt) for state, attempt in await session.execute(query)]

    return rows


@pytest.fixture
async def refuse(engine: AsyncEngine, prefix: str) -> AsyncIterator[Refuse]:
    """Make a trigger refuse updates of jobs, as a user's trigger might."""

    async def execute(*statements: str) -> None:
        async with engine.begin() as connection:
            await connection.execute(text(f'SET LOCAL search_path = "{prefix}", public'))
            for statement in statements:
                await connection.execute(text(statement))

    async def refuse(when: str, do: str = "RAISE EXCEPTION ''not this one'';") -> None:
        await execute(
            "CREATE FUNCTION refusal() RETURNS trigger LANGUAGE plpgsql"
            f" AS 'BEGIN {do} RETURN NULL; END'",
            f"CREATE TRIGGER refusal {when} EXECUTE FUNCTION refusal()",
        )

    yield refuse
    await execute("DROP FUNCTION IF EXISTS refusal() CASCADE")


def of_rows(condition: str) -> str:
    """Make the trigger refuse single rows."""
    return f"BEFORE UPDATE ON oban_jobs FOR EACH ROW WHEN ({condition})"


async def until(holds: Callable[[], bool] | Callable[[], Awaitable[bool]]) -> None:
    """Poll for a condition that no event announces."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found = holds()
            if await found if isinstance(found, Awaitable) else found:
                return
            await asyncio.sleep(0.002)


@asynccontextmanager
async def locked(
    engine: AsyncEngine, prefix: str, table: str = "oban_jobs", *, what: str = ""
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Lock a table against all statements.

    The block gets a function that waits until a statement that begins with `what` waits for the
    lock.
    """
    name = f'"{prefix}".{table}'
    waiting = text(
        "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)"
        " WHERE NOT granted AND relation = CAST(:name AS regclass) AND starts_with(query, :what)"
    )
    async with engine.begin() as connection:
        await connection.execute(text(f"LOCK TABLE {name} IN EXCLUSIVE MODE"))

        async def is_waiting() -> bool:
            # Not in that transaction, which would see the same activity each time.
            async with engine.connect() as other:
                return bool(await other.scalar(waiting, {"name": name, "what": what}))

        yield lambda: until(is_waiting)
