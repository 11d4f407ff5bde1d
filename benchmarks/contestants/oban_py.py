"""Oban for Python."""

import asyncio
from typing import Any, Self

import psycopg
from oban import Oban, worker
from oban.schema import install_sql
from psycopg_pool import AsyncConnectionPool

from benchmarks.contestant import Contestant


@worker(queue="default")
class Nothing:
    async def process(self, job: Any) -> None: ...


class Entrant(Contestant):
    waiting = "SELECT count(*) FROM oban_jobs WHERE state = 'available'"
    finished = "SELECT count(*) FROM oban_jobs WHERE state = 'completed' AND attempt = 1"

    async def install(self) -> None:
        async with await psycopg.AsyncConnection.connect(self.dsn) as connection:
            await connection.execute(install_sql())

    async def __aenter__(self) -> Self:
        self.pool = AsyncConnectionPool(self.dsn, min_size=2, max_size=10, open=False)
        await self.pool.open(wait=True)
        self.client = Oban(pool=self.pool, name="client")
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.pool.close()

    async def enqueue_many(self, count: int) -> None:
        await self.client.enqueue_many([Nothing.new({"number": n}) for n in range(count)])

    async def enqueue(self) -> None:
        await self.client.enqueue(Nothing.new({"number": 1}))

    async def drain(self, count: int, limit: int) -> None:
        async with (
            Oban(pool=self.pool, queues={"default": limit}),
            await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as connection,
        ):
            # It has no event for outcomes that are written: look, but not often.
            while await _count(connection, self.finished) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


async def _count(connection: psycopg.AsyncConnection, query: str) -> int:
    row = await (await connection.execute(query)).fetchone()
    assert row is not None
    return int(row[0])
