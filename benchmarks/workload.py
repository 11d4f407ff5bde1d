"""The workloads: what is measured of a contestant, and what has to be in the database then."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import psycopg

from .contestant import Contestant

Workload = Callable[[Contestant, int], Awaitable[float]]


async def enqueue_many(contestant: Contestant, count: int) -> float:
    """Jobs in one transaction."""
    await contestant.enqueue_many(10)  # statements are prepared, and modules imported
    return await _timed(contestant.enqueue_many(count))


async def enqueue_singly(contestant: Contestant, count: int) -> float:
    """Jobs one after the other, each in a transaction."""
    for _ in range(10):
        await contestant.enqueue()
    return await _timed(_enqueue_singly(contestant, count))


async def drain_20(contestant: Contestant, count: int) -> float:
    """Run jobs that do nothing, 20 at once."""
    await contestant.enqueue_many(count)
    return await _timed(contestant.drain(count, 20))


async def drain_100(contestant: Contestant, count: int) -> float:
    """Run jobs that do nothing, 100 at once."""
    await contestant.enqueue_many(count)
    return await _timed(contestant.drain(count, 100))


WORKLOADS: dict[str, tuple[Workload, int]] = {
    "enqueue_many": (enqueue_many, 10_000),
    "enqueue_singly": (enqueue_singly, 1_000),
    "drain_20": (drain_20, 10_000),
    "drain_100": (drain_100, 10_000),
}
"""By name, and with the number of jobs of the full scale."""


async def measure(contestant: Contestant, name: str, count: int) -> float:
    """The seconds of one run; `AssertionError` if the rows are not as they should be."""
    workload, _ = WORKLOADS[name]
    await contestant.install()
    async with contestant:
        seconds = await workload(contestant, count)
    query, expected = contestant.waiting, count + 10
    if name.startswith("drain"):
        query, expected = contestant.finished, count
    async with await psycopg.AsyncConnection.connect(contestant.dsn) as connection:
        row = await (await connection.execute(query)).fetchone()
    assert row is not None
    assert row[0] == expected, f"{row[0]} rows instead of {expected}"
    return seconds


async def _enqueue_singly(contestant: Contestant, count: int) -> None:
    for _ in range(count):
        await contestant.enqueue()


async def _timed(work: Awaitable[None]) -> float:
    await asyncio.sleep(0)
    started = time.perf_counter()
    await work
    return time.perf_counter() - started
