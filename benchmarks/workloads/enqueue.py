"""B1, B2, B3, B3s: enqueue jobs, in one transaction and in many."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from sqlalchemy import create_engine

from benchmarks.contestant import BARE, Enqueues, EnqueuesMany, TakesSession
from benchmarks.contestants.users import Base, User
from benchmarks.workload import (
    Measured,
    Target,
    Workload,
    beside,
    best_peer,
    percentiles,
    quickest_peer,
)
from oban_sqla.dsn import database_url

CLIENTS = 16
AT_ONCE = f"{CLIENTS} clients, "


async def enqueue_many(contestant: EnqueuesMany, count: int) -> Measured:
    await contestant.enqueue_many(10)  # warm up: prepare statements, import modules
    started = time.perf_counter()
    await contestant.enqueue_many(count)
    rate = count / (time.perf_counter() - started)
    await contestant.expect(contestant.waiting, count + 10)
    return Measured({"jobs/s": rate})


async def unit_of_work(contestant: TakesSession, count: int) -> Measured:
    await contestant.unit_of_work(10)
    started = time.perf_counter()
    await contestant.unit_of_work(count)
    rate = count / (time.perf_counter() - started)
    await contestant.expect(contestant.waiting, count + 10)
    return Measured({"jobs/s": rate})


async def enqueue_singly(contestant: Enqueues, count: int) -> Measured:
    await _timed(contestant.enqueue, 10)
    started = time.perf_counter()
    took = await _timed(contestant.enqueue, count)
    figures = {"jobs/s": count / (time.perf_counter() - started), **percentiles(took)}
    each = -(-count // CLIENTS)
    async with contestant.clients(CLIENTS) as clients:
        await asyncio.gather(*(_timed(client, 5) for client in clients))
        started = time.perf_counter()
        at_once = await asyncio.gather(*(_timed(client, each) for client in clients))
        rate = CLIENTS * each / (time.perf_counter() - started)
    figures |= {f"{AT_ONCE}jobs/s": rate}
    figures |= percentiles([second for own in at_once for second in own], AT_ONCE)
    await contestant.expect(contestant.waiting, 10 + count + CLIENTS * (5 + each))
    return Measured(figures)


async def ride_along(contestant: TakesSession, count: int) -> Measured:
    engine = create_engine(database_url(contestant.dsn))
    Base.metadata.create_all(engine, tables=[Base.metadata.tables[User.__tablename__]])
    engine.dispose()
    await contestant.ride_along(10)
    started = time.perf_counter()
    await contestant.ride_along(count)
    rate = count / (time.perf_counter() - started)
    await contestant.expect("SELECT count(*) FROM users", count + 10)
    await contestant.expect(contestant.waiting, contestant.jobs_each * (count + 10))
    return Measured({"transactions/s": rate})


async def _timed(enqueue: Callable[[], Awaitable[object]], count: int) -> list[float]:
    took = []
    for _ in range(count):
        started = time.perf_counter()
        await enqueue()
        took.append(time.perf_counter() - started)
    return took


WORKLOADS = (
    Workload(
        "B1",
        "enqueue {count} jobs in one transaction",
        EnqueuesMany,
        enqueue_many,
        10_000,
        (
            Target("at least 1.3 times pgqueuer", beside("B1", "jobs/s", "pgqueuer"), 1.3),
            Target(
                "on a psycopg connection: at least 0.5 times the bare SQL",
                lambda results: (
                    results.median("B1", "jobs/s", "oban_sqla_psycopg")
                    / results.median("B1", "jobs/s", BARE)
                ),
                0.5,
            ),
        ),
    ),
    Workload(
        "B2",
        "add {count} jobs to one session, flush and commit",
        TakesSession,
        unit_of_work,
        10_000,
        (
            Target(
                "at least 5 times the flush of SQLAlchemy alone",
                beside("B2", "jobs/s", "sqlalchemy"),
                5,
            ),
        ),
    ),
    Workload(
        "B3",
        "enqueue {count} jobs, one per transaction, with 1 client and with 16",
        Enqueues,
        enqueue_singly,
        1_000,
        (
            Target("at least 1.2 times the best peer", best_peer("B3", "jobs/s"), 1.2),
            Target(
                "16 clients: at least 1.2 times the best peer",
                best_peer("B3", f"{AT_ONCE}jobs/s"),
                1.2,
            ),
            Target("p99: at most that of the best peer", quickest_peer("B3", "p99 ms"), at_most=1),
            Target(
                "16 clients, p99: at most that of the best peer",
                quickest_peer("B3", f"{AT_ONCE}p99 ms"),
                at_most=1,
            ),
        ),
    ),
    Workload(
        "B3s",
        "{count} transactions of an AsyncSession, each with one row of an application and 2 jobs",
        TakesSession,
        ride_along,
        500,
        (
            Target("at least 1 times oban-py", beside("B3s", "transactions/s", "oban_py"), 1),
            Target(
                "at least 0.65 times the transaction without jobs",
                beside("B3s", "transactions/s", "sqlalchemy"),
                0.65,
            ),
        ),
    ),
)
