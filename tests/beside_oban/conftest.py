"""Start nodes of the real oban-py beside nodes of ours, on one table."""

import asyncio
import importlib.util
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

if (
    importlib.util.find_spec("oban") is None
):  # oban-py needs Python 3.12, and most environments do not install it
    collect_ignore_glob = ["test_*.py"]
else:
    import oban as oban_py
    from psycopg_pool import AsyncConnectionPool

    from tests.beside_oban.workers import Script

from tests.listening import PATIENCE

StartTheirs = Callable[..., Awaitable[Any]]
# So long that no poll of our nodes can have found a job.
NEVER = 3600.0


class Table:
    """Read the rows over a connection that belongs to neither library."""

    def __init__(self, dsn: str, prefix: str) -> None:
        self.dsn, self.prefix = dsn, prefix

    async def query(self, query: str, *params: object) -> list[dict[str, Any]]:
        """Run a query, in which `{oban_jobs}` is the table of that name."""
        tables = ("oban_jobs", "oban_leaders", "oban_producers", "oban_sqla_controls")
        named = {name: sql.Identifier(self.prefix, name) for name in tables}
        async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.cursor(row_factory=dict_row)
            await cursor.execute(sql.SQL(query).format(**named), params)
            return await cursor.fetchall() if cursor.description else []

    async def finds_nothing(self, query: str, *params: object) -> bool:
        return await self.query(query, *params) == []

    async def job(self, id: int | None) -> dict[str, Any]:
        (row,) = await self.query("SELECT * FROM {oban_jobs} WHERE id = %s", id)
        return row

    async def states(self) -> dict[str, int]:
        """The number of jobs by state."""
        rows = await self.query("SELECT state::text, count(*) FROM {oban_jobs} GROUP BY 1")
        return {row["state"]: row["count"] for row in rows}

    async def until(self, states: dict[str, int]) -> None:
        """Wait until the jobs are in these states."""
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    if await self.states() == states:
                        return
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"{await self.states()}, not {states}") from None

    async def an_hour_later(self) -> None:
        """Make jobs that are due in an hour due now."""
        await self.query(
            "UPDATE {oban_jobs} SET scheduled_at = scheduled_at - interval '1 hour'"
            " WHERE state IN ('scheduled', 'retryable')"
        )

    async def producers(self, node: str) -> list[dict[str, Any]]:
        return await self.query("SELECT * FROM {oban_producers} WHERE node = %s", node)

    async def has_producers(self, node: str, expected: bool) -> bool:
        return bool(await self.producers(node)) is expected

    async def leader(self) -> str | None:
        """The node that holds the lease."""
        rows = await self.query("SELECT node FROM {oban_leaders} WHERE name = 'Oban'")
        return rows[0]["node"] if rows else None


@pytest.fixture
def table(postgres_dsn: str, prefix: str) -> Table:
    return Table(postgres_dsn, prefix)


@pytest.fixture(autouse=True)
def script() -> Iterator[None]:
    """The worker of the tests, before its first run."""
    Script.reset()
    yield
    Script.gate.set()


@pytest.fixture
async def pool(postgres_dsn: str) -> AsyncIterator["AsyncConnectionPool"]:
    """The pool that oban-py takes instead of an engine."""
    async with AsyncConnectionPool(postgres_dsn, min_size=1, max_size=10, open=False) as pool:
        yield pool


@pytest.fixture
def client(pool: "AsyncConnectionPool", prefix: str) -> "oban_py.Oban":
    """An `Oban` of oban-py that only enqueues and is not started."""
    return oban_py.Oban(pool=pool, prefix=prefix, name="client")


@pytest.fixture
async def start_theirs(pool: "AsyncConnectionPool", prefix: str) -> AsyncIterator[StartTheirs]:
    """Start nodes of oban-py, with a stager that looks often. They are stopped at the end."""
    async with AsyncExitStack() as stack:

        async def start_theirs(**options: Any) -> "oban_py.Oban":
            options.setdefault("queues", {"shared": 10})
            options.setdefault("shutdown_grace_period", 1.0)
            options.setdefault("stager", {"interval": 0.05})
            options.setdefault("node", "theirs")
            options = {"pool": pool, "prefix": prefix, **options}
            theirs = await stack.enter_async_context(oban_py.Oban(**options))
            # oban-py begins to listen for signals in the background.
            await theirs._notifier.listen("signal", lambda *_: None, wait=True)
            return theirs

        yield start_theirs
