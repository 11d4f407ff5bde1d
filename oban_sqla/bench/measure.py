"""Measure jobs enqueued and run per second, the pickup time, and bare SQL."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import event

from ..dsn import database_url
from ..errors import ObanError
from ..events import AckStop
from ..models import Job
from ..oban import Oban
from ..runtime.database import Database
from ..runtime.engine import driver_of
from ..workers.worker import Worker
from .bare_sql import FEED, INSERT, NEXT

BATCH = 1_000
LIMIT = 20
# Waiting jobs per second of the run measurement: more than a common server can run.
FEED_PER_SECOND = 10_000
WARM_UP = 3
ROUND_TRIPS = 0.1
"""The seconds of this measurement. It needs less time than the other measurements."""


class Nothing(Worker, name="oban_sqla.bench.nothing"):
    """A worker that does nothing."""

    async def process(self, job: Job) -> None: ...


class Pickup(Worker, name="oban_sqla.bench.pickup"):
    """A worker that reports when it starts."""

    started: asyncio.Queue[float]

    async def process(self, job: Job) -> None:
        Pickup.started.put_nowait(time.perf_counter())


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure."""

    measured: str
    value: float
    unit: str


async def measure(dsn: str, prefix: str, seconds: float) -> AsyncIterator[Figure]:
    """Measure for about `seconds` in empty tables, and yield each figure as soon as it is known."""
    bench = _Bench(dsn, prefix, seconds / 6)
    try:
        for part in (
            bench.round_trips,
            bench.enqueue_bare,
            bench.enqueue_many,
            bench.enqueue_singly,
            bench.run_bare,
            bench.run,
            bench.pick_up,
        ):
            await bench.empty()
            for figure in await part():
                yield figure
    finally:
        await bench.dispose()


class _Bench:
    """The measurements, each of which takes about `seconds`."""

    def __init__(self, dsn: str, prefix: str, seconds: float) -> None:
        url = database_url(dsn)
        # Bare SQL is measured with psycopg, whatever the engine's driver is.
        self._database = Database(url.set(drivername="postgresql+psycopg"), prefix)
        self._engine = Database(url, prefix)
        self._prefix = prefix
        self._seconds = seconds
        self._jobs = sql.Identifier(prefix, "oban_jobs")

    async def dispose(self) -> None:
        await self._engine.dispose()
        await self._database.dispose()

    async def empty(self) -> None:
        async with self._connection() as connection:
            await connection.execute(sql.SQL("TRUNCATE {}").format(self._jobs))

    async def round_trips(self) -> list[Figure]:
        async with self._connection() as connection:
            took = await self._repeat(lambda: connection.execute("SELECT 1"), ROUND_TRIPS)
        return [Figure("round trip, p50", _percentile(took, 0.5), "ms")]

    async def enqueue_bare(self) -> list[Figure]:
        rows = [{"worker": "bare", "args": {"number": number}} for number in range(BATCH)]
        insert = sql.SQL(INSERT).format(self._jobs)
        async with self._connection() as connection:

            async def enqueue() -> None:
                cursor = await connection.execute(insert, [json.dumps(rows)])
                await cursor.fetchall()

            took = await self._repeat(enqueue)
        await self._expect((len(took) + WARM_UP) * BATCH, "available")
        return [Figure("bare SQL enqueues, 1,000 in one statement", _rate(took) * BATCH, "jobs/s")]

    async def enqueue_many(self) -> list[Figure]:
        oban = self._oban()

        async def enqueue() -> None:
            await oban.enqueue_many(Nothing.new({"number": number}) for number in range(BATCH))

        took = await self._repeat(enqueue)
        await self._expect((len(took) + WARM_UP) * BATCH, "available")
        return [Figure("enqueue_many, 1,000 in one transaction", _rate(took) * BATCH, "jobs/s")]

    async def enqueue_singly(self) -> list[Figure]:
        oban = self._oban()
        took = await self._repeat(lambda: oban.enqueue(Nothing.new({"number": 1})))
        await self._expect(len(took) + WARM_UP, "available")
        what = "enqueue, a transaction each"
        return [
            Figure(what, _rate(took), "jobs/s"),
            Figure(f"{what}, p99", _percentile(took, 0.99), "ms"),
        ]

    async def run_bare(self) -> list[Figure]:
        count = await self._feed()
        next_jobs = sql.SQL(NEXT).format(self._jobs)
        done: list[int] = []
        finished = 0
        async with self._connection() as connection:
            started = time.perf_counter()
            until = started + self._seconds
            while not finished or (finished < count and time.perf_counter() < until):
                finished += len(done)
                cursor = await connection.execute(next_jobs, {"done": done, "limit": LIMIT})
                done = [row[0] for row in await cursor.fetchall()]
            rate = finished / (time.perf_counter() - started)
        await self._expect(finished, "completed")
        return [Figure("bare SQL runs, 20 at once", rate, "jobs/s")]

    async def run(self) -> list[Figure]:
        count = await self._feed()
        finished = 0
        some_finished, all_finished = asyncio.Event(), asyncio.Event()
        oban = self._oban(queues={"default": LIMIT})

        @event.listens_for(oban, "ack_stop")
        def add(oban: Oban, stop: AckStop) -> None:
            nonlocal finished
            finished += stop.count
            if finished:
                some_finished.set()
            if finished >= count:
                all_finished.set()

        started = time.perf_counter()
        async with oban:
            try:
                async with asyncio.timeout(self._seconds):
                    await all_finished.wait()
            except TimeoutError:
                pass  # most servers run only a part of the jobs
            await some_finished.wait()
            rate = finished / (time.perf_counter() - started)
            count = await self._take_away()
            if finished < count:
                await all_finished.wait()
        await self._expect(finished, "completed")
        return [Figure("jobs run that do nothing, 20 at once", rate, "jobs/s")]

    async def pick_up(self) -> list[Figure]:
        Pickup.started = asyncio.Queue()
        took: list[float] = []

        async def pick_up() -> None:
            enqueued = time.perf_counter()
            await oban.enqueue(Pickup.new({}))
            took.append(await Pickup.started.get() - enqueued)

        async with self._oban(queues={"default": LIMIT}) as oban:
            await self._repeat(pick_up)
        await self._expect(len(took), "completed")
        took = took[WARM_UP:]
        what = "pickup, from the enqueue call to the job"
        return [
            Figure(f"{what}, p50", _percentile(took, 0.5), "ms"),
            Figure(f"{what}, p99", _percentile(took, 0.99), "ms"),
        ]

    def _oban(self, **options: Any) -> Oban:
        return Oban(self._engine.engine, name="bench", prefix=self._prefix, **options)

    async def _repeat(
        self, once: Callable[[], Awaitable[object]], seconds: float | None = None
    ) -> list[float]:
        """Call `once` for `seconds`, and return how long each call took, without the warm-up."""
        for _ in range(WARM_UP):
            await once()
        took: list[float] = []
        until = time.perf_counter() + (self._seconds if seconds is None else seconds)
        while not took or time.perf_counter() < until:
            started = time.perf_counter()
            await once()
            took.append(time.perf_counter() - started)
        return took

    async def _feed(self) -> int:
        """Insert available jobs by a statement of the server. Returns their number."""
        count = max(LIMIT, int(FEED_PER_SECOND * self._seconds))
        async with self._connection() as connection:
            worker = Nothing.new({}).worker
            await connection.execute(sql.SQL(FEED).format(self._jobs), [worker, count])
            await connection.execute(sql.SQL("ANALYZE {}").format(self._jobs))
        return count

    async def _take_away(self) -> int:
        """Delete the waiting jobs, so that the node can end. Returns how many jobs are left."""
        waiting = sql.SQL("DELETE FROM {} WHERE state = 'available'").format(self._jobs)
        left = sql.SQL("SELECT count(*) FROM {}").format(self._jobs)
        async with self._connection() as connection:
            await connection.execute(waiting)
            row = await (await connection.execute(left)).fetchone()
        assert row is not None
        return int(row[0])

    async def _expect(self, count: int, state: str) -> None:
        """`ObanError` if the number of jobs in a state is not `count`: the figure is wrong then."""
        query = sql.SQL("SELECT count(*) FROM {} WHERE state = %s").format(self._jobs)
        async with self._connection() as connection:
            row = await (await connection.execute(query, [state])).fetchone()
        if row is None or row[0] != count:
            raise ObanError(f"{row and row[0]} jobs are {state} instead of {count}")

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[psycopg.AsyncConnection]:
        async with self._database.autocommit() as connection:
            yield driver_of(connection)


def _rate(took: Sequence[float]) -> float:
    return len(took) / sum(took)


def _percentile(took: Sequence[float], share: float) -> float:
    """A percentile in milliseconds."""
    return sorted(took)[min(len(took) - 1, int(len(took) * share))] * 1000
