"""What a contestant can be able to do; each does it as its own documentation recommends.

A workload asks for one of these classes, and all contestants that inherit from it take part.
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
PEERS = ("oban_py", "procrastinate", "pgqueuer")
NAMES = (OURS, "oban_sqla_psycopg", "sqlalchemy", BARE, *PEERS)

PATIENCE = 60.0
"""Seconds; longer than anything here takes."""

Started = Callable[[float], None]
"""What the first line of a job calls, with the instant that it was given."""


class Contestant(ABC):
    """A queue on a database of its own."""

    waiting: str
    """The SELECT of how many jobs wait."""
    finished: str
    """The SELECT of how many are finished, each of them once."""

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
        """The one number that a query returns, through a connection of its own."""
        async with await psycopg.AsyncConnection.connect(self.dsn) as connection:
            row = await (await connection.execute(query.encode())).fetchone()
        assert row is not None
        return int(row[0])

    async def until(self, query: str, count: int, interval: float = 0.05) -> None:
        """Wait until a query returns that number; `TimeoutError` if it takes too long."""
        async with asyncio.timeout(PATIENCE):
            while await self.number(query) != count:  # noqa: ASYNC110 - not all have an event
                await asyncio.sleep(interval)

    async def expect(self, query: str, count: int) -> None:
        """`AssertionError` if there are not so many rows."""
        found = await self.number(query)
        assert found == count, f"{found} rows instead of {count}: {query}"


class EnqueuesMany(Contestant):
    """Jobs that do nothing."""

    @abstractmethod
    async def enqueue_many(self, count: int) -> None:
        """Enqueue so many jobs, all or none."""


class Enqueues(EnqueuesMany):
    @abstractmethod
    async def enqueue(self) -> None:
        """Enqueue one job in a transaction of its own."""

    @abstractmethod
    def clients(
        self, count: int
    ) -> AbstractAsyncContextManager[Sequence[Callable[[], Awaitable[object]]]]:
        """As many times `enqueue`, each of which may be awaited while the others are."""


class TakesSession(Contestant):
    """Jobs in a transaction of SQLAlchemy's `AsyncSession`."""

    jobs_each = 2
    """How many jobs `ride_along` enqueues in each transaction."""

    @abstractmethod
    async def unit_of_work(self, count: int) -> None:
        """Add so many jobs to one session one by one, flush it, know their ids, commit."""

    @abstractmethod
    async def ride_along(self, count: int) -> None:
        """So many transactions, each with a row of `users` and `jobs_each` jobs."""


class Drains(EnqueuesMany):
    @abstractmethod
    async def drain(self, count: int, limit: int) -> None:
        """Run all jobs, `limit` at once, until `count` have been run."""

    @abstractmethod
    async def fill(self, finished: int, future: int) -> None:
        """Put jobs into the table that are finished, and such as are due tomorrow, by SQL."""


class Starts(Contestant):
    """A node, and jobs that tell it when they start."""

    @abstractmethod
    def node(self, started: Started) -> AbstractAsyncContextManager[None]:
        """A node that runs, and listens, when the block begins."""

    @abstractmethod
    async def start_now(self) -> None:
        """Enqueue a job, and give it what the monotonic clock says just before."""

    @abstractmethod
    async def start_at(self, due: float) -> None:
        """Enqueue a job that is due then, in seconds since the epoch, and give it that."""


class Idles(Contestant):
    @abstractmethod
    def idle(self) -> AbstractAsyncContextManager[None]:
        """A node with three queues, and nothing else that is connected."""


def entrant(name: str) -> type[Contestant]:
    """The class of that name; `ModuleNotFoundError` if its package is not installed."""
    own: type[Contestant] = import_module(f"{__package__}.contestants.{name}").Entrant
    return own
