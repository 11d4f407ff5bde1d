"""oban_sqla, enqueueing on a connection of psycopg."""

from typing import Self

import psycopg

from benchmarks.contestants import oban_sqla
from benchmarks.contestants.oban_sqla import Nothing


class Entrant(oban_sqla.Entrant):
    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self.connection = await psycopg.AsyncConnection.connect(self.dsn, autocommit=True)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.connection.close()
        await super().__aexit__(*error)

    async def enqueue_many(self, count: int) -> None:
        jobs = (Nothing.new({"number": n}) for n in range(count))
        async with self.connection.transaction():
            await self.client.enqueue_many(jobs, conn=self.connection)

    async def enqueue(self) -> None:
        async with self.connection.transaction():
            await self.client.enqueue(Nothing.new({"number": 1}), conn=self.connection)
