"""The abilities of contestants. Each contestant follows the recommendations of its documentation.

A workload names one of these classes. All contestants that inherit from it take part.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from importlib import import_module
from types import TracebackType
from typing import Self

import psycopg

OURS = "oban_sqla"
BARE = "bare"
PEERS = ("oban_py", "procrastinate", "pgqueuer", "dbos")
NAMES = (OURS, "oban_sqla_psycopg", "sqlalchemy", BARE, *PEERS)

PATIENCE = 60.0
"""Seconds after which a wait fails."""

Started = Callable[[float], None]
"""The function that the first line of a job calls, with the instant in its arguments."""


class Contestant(ABC):
    """A job queue with a database of its own."""

    waiting: str
    """The SELECT that counts waiting jobs."""
    finished: str
    """The SELECT that counts finished jobs, each once."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    @abstractmethod
    async def install(self) -> None:
        """Create the tables."""

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Connect."""

    @abstractmethod
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Disconnect."""

    async def number(self, query: str) -> int:
        """The number that a query returns, through a new connection."""
        async with await psycopg.AsyncConnection.connect(self.dsn) as connection:
            row = await (await connection.execute(query.encode())).fetchone()
        assert row is not None
        return int(row[0])

    async def until(self, query: str, count: int, interval: float = 0.05) -> None:
        """Wait until a query returns this number; `TimeoutError` after `PATIENCE` seconds."""
        async with asyncio.timeout(PATIENCE):
            while await self.number(query) != count:  # noqa: ASYNC110 - not all have an event
                await asyncio.sleep(interval)

    async def expect(self, query: str, count: int) -> None:
        """`AssertionError` if a query returns another number."""
        found = await self.number(query)
        assert found == count, f"{found} rows instead of {count}: {query}"


class EnqueuesMany(Contestant):
    """Enqueues jobs that do nothing."""

    @abstractmethod
    async def enqueue_many(self, count: int) -> None:
        """Enqueue this number of jobs, all or none."""


class Enqueues(EnqueuesMany):
    @abstractmethod
    async def enqueue(self) -> None:
        """Enqueue one job in a transaction of its own."""

    @abstractmethod
    def clients(
        self, count: int
    ) -> AbstractAsyncContextManager[Sequence[Callable[[], Awaitable[object]]]]:
        """This number of functions like `enqueue`, which may be awaited at the same time."""


class TakesSession(Contestant):
    """Enqueues jobs in a transaction of SQLAlchemy's `AsyncSession`."""

    jobs_each = 2
    """The number of jobs that `ride_along` enqueues in each transaction."""

    @abstractmethod
    async def unit_of_work(self, count: int) -> None:
        """Add this number of jobs to one session, one by one; flush, read their ids, commit."""

    @abstractmethod
    async def ride_along(self, count: int) -> None:
        """Commit this number of transactions, each with a row of `users` and `jobs_each` jobs."""


class Drains(EnqueuesMany):
    @abstractmethod
    async def drain(self, count: int, limit: int) -> None:
        """Run all jobs, `limit` at once, until `count` have been run."""

    @abstractmethod
    async def fill(self, finished: int, future: int) -> None:
        """Insert finished jobs, and jobs that are due tomorrow, by SQL."""


class RunsWorkflows(Contestant):
    """Workflows: a step, then `width` steps at once, then a step that waits for these."""

    @abstractmethod
    async def enqueue_workflows(self, count: int, width: int) -> None:
        """Enqueue so many workflows."""

    @abstractmethod
    async def run_workflows(self, count: int, width: int, limit: int) -> None:
        """Run all workflows, `limit` at once, until `count` have ended."""


class Starts(Contestant):
    """Runs a node whose jobs report their start."""

    @abstractmethod
    def node(self, started: Started) -> AbstractAsyncContextManager[None]:
        """A running node, which listens before the block begins."""

    @abstractmethod
    async def start_now(self) -> None:
        """Enqueue a job whose arguments have the monotonic time just before the call."""

    @abstractmethod
    async def start_at(self, due: float) -> None:
        """Enqueue a job that is due at a time (seconds since the epoch), and pass it the time."""


class Idles(Contestant):
    @abstractmethod
    def idle(self) -> AbstractAsyncContextManager[None]:
        """A node with three queues. No other client is connected."""


def entrant(name: str) -> type[Contestant]:
    """The class of a contestant; `ModuleNotFoundError` if its package is not installed."""
    own: type[Contestant] = import_module(f"{__package__}.contestants.{name}").Entrant
    return own
