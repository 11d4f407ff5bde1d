"""oban_sqla, by its own engine."""

import asyncio
from typing import Self

from sqlalchemy import create_engine, event
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.contestant import Contestant
from oban_sqla import Job, Oban, Worker
from oban_sqla.config import database_url
from oban_sqla.migrations import upgrade


class Nothing(Worker, name="benchmarks.nothing"):
    async def process(self, job: Job) -> None: ...


class Entrant(Contestant):
    waiting = "SELECT count(*) FROM oban_jobs WHERE state = 'available'"
    finished = "SELECT count(*) FROM oban_jobs WHERE state = 'completed' AND attempt = 1"

    async def install(self) -> None:
        engine = create_engine(database_url(self.dsn))
        with engine.begin() as connection:
            upgrade(connection)
        engine.dispose()

    async def __aenter__(self) -> Self:
        self.engine = create_async_engine(database_url(self.dsn))
        self.client = Oban(self.engine, name="client")
        async with self.engine.connect():
            pass
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.engine.dispose()

    async def enqueue_many(self, count: int) -> None:
        await self.client.enqueue_many(Nothing.new({"number": n}) for n in range(count))

    async def enqueue(self) -> None:
        await self.client.enqueue(Nothing.new({"number": 1}))

    async def drain(self, count: int, limit: int) -> None:
        done = asyncio.Event()
        written = 0

        async with Oban(self.engine, queues={"default": limit}) as oban:

            @event.listens_for(oban, "ack_stop")
            def add(oban: Oban, stop: object) -> None:
                nonlocal written
                written += stop.count  # type: ignore[attr-defined]
                if written >= count:
                    done.set()

            await done.wait()
