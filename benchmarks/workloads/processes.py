"""B5: several processes on one queue."""

import asyncio

import psycopg

from benchmarks.child import Child
from benchmarks.contestants.oban_sqla import Entrant
from benchmarks.workload import Measured, Target, Workload, within

PROCESSES = 4
TOOK = """
SELECT extract(epoch FROM max(completed_at) - min(attempted_at)) FROM oban_jobs
"""
UNFINISHED = "SELECT count(*) FROM oban_jobs WHERE state IN ('available', 'executing')"


async def processes(contestant: Entrant, count: int) -> Measured:
    return Measured(
        {
            "1 process, jobs/s": await _drain(contestant, count, 1),
            f"{PROCESSES} processes, jobs/s": await _drain(contestant, count, PROCESSES),
        }
    )


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
        f"run {{count}} jobs in 1 process, and in {PROCESSES}, 20 at once in each",
        Entrant,
        processes,
        10_000,
        (
            Target(
                f"{PROCESSES} processes at least 0.9 times one",
                within("B5", f"{PROCESSES} processes, jobs/s", "1 process, jobs/s"),
                0.9,
            ),
        ),
    ),
)
