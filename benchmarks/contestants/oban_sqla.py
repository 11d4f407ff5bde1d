"""oban_sqla, through its engine."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import ClassVar, Self

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from benchmarks.contestant import (
    Drains,
    Enqueues,
    Idles,
    RunsWorkflows,
    Started,
    Starts,
    TakesSession,
)
from benchmarks.contestants.oban_table import ObanTable
from benchmarks.contestants.users import User
from oban_sqla import Job, Oban, Worker, Workflow
from oban_sqla.dsn import database_url


class Nothing(Worker, name="benchmarks.nothing"):
    async def process(self, job: Job) -> None: ...


class Start(Worker, name="benchmarks.start"):
    told: ClassVar[Started]

    async def process(self, job: Job) -> None:
        Start.told(job.args["at"])


def fan(width: int) -> Workflow:
    """A workflow: one step, `width` steps that wait for it, and one that waits for all of these."""
    flow = Workflow("fan")
    first = flow.add("first", Nothing.new({"number": 0}))
    parts = [flow.add(f"part-{n}", Nothing.new({"number": n}), deps=first) for n in range(width)]
    flow.add("end", Nothing.new({"number": width}), deps=parts)
    return flow


class Entrant(ObanTable, Enqueues, TakesSession, Drains, RunsWorkflows, Starts, Idles):
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

    @asynccontextmanager
    async def clients(self, count: int) -> AsyncIterator[Sequence[Callable[[], Awaitable[object]]]]:
        engine = create_async_engine(database_url(self.dsn), pool_size=count)
        oban = Oban(engine, name="clients")
        yield [lambda: oban.enqueue(Nothing.new({"number": 1}))] * count
        await engine.dispose()

    async def unit_of_work(self, count: int) -> None:
        async with AsyncSession(self.engine) as session, session.begin():
            jobs = [Nothing.new({"number": n}) for n in range(count)]
            for job in jobs:
                session.add(job)
            await session.flush()
            assert all(job.id for job in jobs)

    async def ride_along(self, count: int) -> None:
        for number in range(count):
            async with AsyncSession(self.engine) as session, session.begin():
                session.add(User(name=f"user {number}"))
                session.add(Nothing.new({"number": number}))
                session.add(Nothing.new({"number": number}))

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

    async def enqueue_workflows(self, count: int, width: int) -> None:
        async with AsyncSession(self.engine) as session, session.begin():
            session.add_all(fan(width) for _ in range(count))

    async def run_workflows(self, count: int, width: int, limit: int) -> None:
        await self.drain(count * (width + 2), limit)

    @asynccontextmanager
    async def node(self, started: Started) -> AsyncIterator[None]:
        Start.told = started
        # The node enqueues its own jobs, like a web application that also runs queues.
        async with Oban(self.engine, name="client", queues={"default": 20}) as self.client:
            yield

    async def start_now(self) -> None:
        await self.client.enqueue(Start.new({"at": time.monotonic()}))

    async def start_at(self, due: float) -> None:
        at = datetime.fromtimestamp(due, UTC)
        await self.client.enqueue(Start.new({"at": due}, scheduled_at=at))

    @asynccontextmanager
    async def idle(self) -> AsyncIterator[None]:
        async with Oban(self.engine, queues={"default": 10, "mailers": 10, "reports": 10}):
            yield
