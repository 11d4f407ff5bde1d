"""B17: the cost of waiting for jobs: statements, connections, and the rate of the jobs."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from benchmarks.contestants.oban_sqla import Entrant, Nothing
from benchmarks.workload import Measured, Target, Workload, itself, within
from oban_sqla import Job, Oban
from oban_sqla.dsn import database_url

LIMIT = 20
ALONE, AWAITED = "nobody waits, jobs/s", "with waiters, jobs/s"
STATEMENTS, CONNECTIONS = "statements for a waiter", "connections of the waiters' pool"


async def waiting(contestant: Entrant, count: int) -> Measured:
    engine = create_async_engine(database_url(contestant.dsn))
    client = Oban(engine, name="waiters")
    statements = connections = 0
    asked = asyncio.Event()

    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def count_statement(*args: Any) -> None:
        nonlocal statements
        statements += 1
        asked.set()

    @event.listens_for(engine.sync_engine, "checkout")
    def count_connections(*args: Any) -> None:
        nonlocal connections, statements
        # A query of the jobs goes past the cursors, on a connection that it checks out.
        statements += 1
        connections = max(connections, engine.pool.checkedout())  # type: ignore[attr-defined]

    async with _paused(contestant.engine, count) as (oban, jobs, done):
        alone = await _run(oban, done)
    async with _paused(contestant.engine, count) as (oban, jobs, done):
        waiters = [asyncio.create_task(client.wait(job)) for job in jobs]
        await asked.wait()
        awaited = await _run(oban, done)
        await asyncio.gather(*waiters)
    await contestant.expect(contestant.finished, 2 * count)
    await engine.dispose()
    return Measured(
        {
            ALONE: count / alone,
            AWAITED: count / awaited,
            STATEMENTS: statements / count,
            CONNECTIONS: connections,
        }
    )


@asynccontextmanager
async def _paused(
    engine: AsyncEngine, count: int
) -> AsyncIterator[tuple[Oban, list[Job], asyncio.Event]]:
    """A node with a paused queue, its jobs, and an event that is set when all have ended."""
    done = asyncio.Event()
    ended = 0
    queues = {"default": {"limit": LIMIT, "paused": True}}
    async with Oban(engine, name="node", queues=queues) as oban:
        jobs = await oban.enqueue_many(Nothing.new({"number": n}) for n in range(count))

        @event.listens_for(oban, "ack_stop")
        def add(oban: Oban, stop: Any) -> None:
            nonlocal ended
            ended += stop.count
            if ended >= count:
                done.set()

        yield oban, jobs, done


async def _run(oban: Oban, done: asyncio.Event) -> float:
    """Run the jobs, and return the seconds that they take."""
    began = time.perf_counter()
    await oban.resume_queue("default")
    await done.wait()
    return time.perf_counter() - began


WORKLOADS = (
    Workload(
        "B17",
        f"{{count}} tasks of one process wait for one job each, while {LIMIT} jobs run at once",
        Entrant,
        waiting,
        10_000,
        (
            Target("at most 1 statement per waiting task", itself("B17", STATEMENTS), at_most=1),
            Target(
                "at most 1 connection of the pool for all", itself("B17", CONNECTIONS), at_most=1
            ),
            Target(
                "jobs/s: at least 0.5 times the rate without waiting tasks",
                within("B17", AWAITED, ALONE),
                0.5,
            ),
        ),
        most_runs=1,
    ),
)
