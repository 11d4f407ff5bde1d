"""B5: several processes on one queue; B16: two nodes that share long jobs."""

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import psycopg
from sqlalchemy import event, select

from benchmarks.child import Child
from benchmarks.contestants.oban_sqla import Entrant
from benchmarks.workload import Measured, Target, Workload, itself, within
from oban_sqla import Job, Oban, Worker

PROCESSES = (1, 2, 4, 8)
LONG = 0.1
"""Seconds that each job of B16 takes."""
LIMIT = 10
TOOK = """
SELECT extract(epoch FROM max(completed_at) - min(attempted_at)) FROM oban_jobs
"""
UNFINISHED = "SELECT count(*) FROM oban_jobs WHERE state IN ('available', 'executing')"


async def processes(contestant: Entrant, count: int) -> Measured:
    return Measured(
        {_rate(processes): await _drain(contestant, count, processes) for processes in PROCESSES}
    )


def _rate(processes: int) -> str:
    return f"{processes} process{'es' if processes > 1 else ''}, jobs/s"


async def sharing(contestant: Entrant, count: int) -> Measured:
    """How evenly two nodes share jobs, and how long a claimed job waits for its start."""
    begun: dict[int, float] = {}
    by: Counter[str] = Counter()
    done = asyncio.Event()

    def start(oban: Oban, start: Any) -> None:
        begun[start.job.id] = time.time()
        by[oban.node] += 1

    def stop(oban: Oban, stop: Any) -> None:
        if sum(by.values()) == count:
            done.set()

    await contestant.client.enqueue_many(Wait.new() for _ in range(count))
    started = time.perf_counter()
    async with AsyncExitStack() as nodes:
        for node in ("a", "b"):
            oban = Oban(contestant.engine, name=node, node=node, queues={"default": LIMIT})
            event.listen(oban, "job_start", start)
            event.listen(oban, "ack_stop", stop)
            await nodes.enter_async_context(oban)
        await done.wait()
        await contestant.until(contestant.finished, count)
        took = time.perf_counter() - started
    async with contestant.engine.connect() as connection:
        rows = await connection.execute(select(Job.id, Job.attempted_at))
        held = [begun[id] - at.timestamp() for id, at in rows]
    return Measured(
        {
            IDEAL: took / (count * LONG / (2 * LIMIT)),
            LESSER: min(by["a"], by["b"]) / count,
            HELD: max(held) * 1000,
        }
    )


class Wait(Worker, name="benchmarks.wait"):
    async def process(self, job: Job) -> None:
        await asyncio.sleep(LONG)


IDEAL, LESSER, HELD = "times the ideal time", "share of the lesser node", "longest held, ms"


async def _drain(contestant: Entrant, count: int, processes: int) -> float:
    await contestant.enqueue_many(count)
    nodes = await asyncio.gather(*(Child.start("node", contestant.dsn) for _ in range(processes)))
    for node in nodes:
        await node.tell("start")
    await contestant.until(UNFINISHED, 0)
    ran = [int(await node.end()) for node in nodes]
    assert sum(ran) == count, f"{ran} jobs were run instead of {count}"
    await contestant.expect(contestant.finished, count)
    async with await psycopg.AsyncConnection.connect(contestant.dsn) as connection:
        row = await (await connection.execute(TOOK)).fetchone()
        assert row is not None
        await connection.execute("TRUNCATE oban_jobs")
    return count / float(row[0])


WORKLOADS = (
    Workload(
        "B5",
        f"run {{count}} jobs in {', '.join(map(str, PROCESSES))} processes, 20 at once in each",
        Entrant,
        processes,
        10_000,
        (
            Target(
                "4 processes: at least the rate of one",
                within("B5", _rate(4), _rate(1)),
                1,
            ),
        ),
    ),
    Workload(
        "B16",
        f"two nodes run {{count}} jobs of {LONG * 1000:g} ms, {LIMIT} at once in each",
        Entrant,
        sharing,
        200,
        (
            Target(
                "the node with fewer jobs runs at least 0.4 of them",
                itself("B16", LESSER),
                at_least=0.4,
            ),
            Target("no job is held for longer than 100 ms", itself("B16", HELD), at_most=100),
        ),
        most_runs=1,
    ),
)
