"""oban_sqla, enqueueing through a psycopg connection."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Self

import psycopg

from benchmarks.contestant import Enqueues
from benchmarks.contestants.oban_sqla import Nothing
from benchmarks.contestants.oban_table import ObanTable
from oban_sqla import Oban


class Entrant(ObanTable, Enqueues):
    async def __aenter__(self) -> Self:
        self.connection = await self._connect()
        self.client = Oban(self.dsn, name="client")
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.connection.close()

    async def _connect(self) -> psycopg.AsyncConnection:
        return await psycopg.AsyncConnection.connect(self.dsn, autocommit=True)

    async def enqueue_many(self, count: int) -> None:
        jobs = (Nothing.new({"number": n}) for n in range(count))
        async with self.connection.transaction():
            await self.client.enqueue_many(jobs, conn=self.connection)

    async def enqueue(self) -> None:
        await self._enqueue(self.connection)

    @asynccontextmanager
    async def clients(self, count: int) -> AsyncIterator[Sequence[Callable[[], Awaitable[object]]]]:
        async with AsyncExitStack() as stack:
            connections = [
                await stack.enter_async_context(await self._connect()) for _ in range(count)
            ]
            yield [partial(self._enqueue, connection) for connection in connections]

    async def _enqueue(self, connection: psycopg.AsyncConnection) -> None:
        async with connection.transaction():
            await self.client.enqueue(Nothing.new({"number": 1}), conn=connection)
