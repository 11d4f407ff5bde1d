"""Oban for Python."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Self

import psycopg
from oban import Oban, worker
from oban.schema import install_sql
from psycopg_pool import AsyncConnectionPool
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from benchmarks.contestant import Drains, Enqueues, Idles, Started, Starts, TakesSession
from benchmarks.contestants.oban_table import ObanTable
from benchmarks.contestants.users import User

UNFINISHED = "SELECT count(*) FROM oban_jobs WHERE state IN ('available', 'executing')"


@worker(queue="default")
class Nothing:
    left = 0
    done: asyncio.Event

    async def process(self, job: Any) -> None:
        Nothing.left -= 1
        if not Nothing.left:
            Nothing.done.set()


@worker(queue="default")
class Start:
    told: Started

    async def process(self, job: Any) -> None:
        Start.told(job.args["at"])


class Entrant(ObanTable, Enqueues, TakesSession, Drains, Starts, Idles):
    async def install(self) -> None:
        async with await psycopg.AsyncConnection.connect(self.dsn) as connection:
            await connection.execute(install_sql())

    async def __aenter__(self) -> Self:
        # The default of oban-py.
        self.pool = await self._open(1, 10)
        self.client = Oban(pool=self.pool, name="client")
        self.engine = create_async_engine(self.dsn.replace("://", "+psycopg://"))
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.engine.dispose()
        await self.pool.close()

    async def _open(self, least: int, most: int) -> AsyncConnectionPool:
        pool = AsyncConnectionPool(self.dsn, min_size=least, max_size=most, open=False)
        await pool.open(wait=True)
        return pool

    async def enqueue_many(self, count: int) -> None:
        await self.client.enqueue_many([Nothing.new({"number": n}) for n in range(count)])

    async def enqueue(self) -> None:
        await self.client.enqueue(Nothing.new({"number": 1}))

    @asynccontextmanager
    async def clients(self, count: int) -> AsyncIterator[Sequence[Callable[[], Awaitable[object]]]]:
        pool = await self._open(count, count)
        oban = Oban(pool=pool, name="clients")
        yield [lambda: oban.enqueue(Nothing.new({"number": 1}))] * count
        await pool.close()

    async def unit_of_work(self, count: int) -> None:
        async with AsyncSession(self.engine) as session, session.begin():
            jobs = [Nothing.new({"number": n}) for n in range(count)]
            for job in jobs:
                await self.client.enqueue(job, conn=session)
            await session.flush()
            assert all(job.id for job in jobs)

    async def ride_along(self, count: int) -> None:
        for number in range(count):
            async with AsyncSession(self.engine) as session, session.begin():
                session.add(User(name=f"user {number}"))
                await self.client.enqueue(Nothing.new({"number": number}), conn=session)
                await self.client.enqueue(Nothing.new({"number": number}), conn=session)

    async def drain(self, count: int, limit: int) -> None:
        Nothing.left, Nothing.done = count, asyncio.Event()
        async with Oban(pool=self.pool, queues={"default": limit}):
            await Nothing.done.wait()
            # oban-py has no event for written outcomes, so look in the table after the last job.
            await self.until(UNFINISHED, 0, interval=0.01)

    @asynccontextmanager
    async def node(self, started: Started) -> AsyncIterator[None]:
        Start.told = started
        async with Oban(pool=self.pool, name="client", queues={"default": 20}) as self.client:
            yield

    async def start_now(self) -> None:
        await self.client.enqueue(Start.new({"at": time.monotonic()}))

    async def start_at(self, due: float) -> None:
        at = datetime.fromtimestamp(due, UTC)
        await self.client.enqueue(Start.new({"at": due}, scheduled_at=at))

    @asynccontextmanager
    async def idle(self) -> AsyncIterator[None]:
        async with Oban(pool=self.pool, queues={"default": 10, "mailers": 10, "reports": 10}):
            yield
