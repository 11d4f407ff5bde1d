"""B10: the memory of a process after a tenth of its jobs, and after all of them."""

import asyncio

import psutil
import psycopg
from sqlalchemy import event

from benchmarks.contestants.oban_sqla import Entrant, Nothing
from benchmarks.workload import Measured, Target, Workload, within
from oban_sqla import Oban

# The server inserts the jobs, so that this process needs no memory for that.
ENQUEUE = """
INSERT INTO oban_jobs (worker, args)
SELECT %s, jsonb_build_object('number', n) FROM generate_series(1, %s) n
"""
EARLY, LATE = "after a tenth of them, MB", "after all, MB"


async def memory(contestant: Entrant, count: int) -> Measured:
    async with await psycopg.AsyncConnection.connect(contestant.dsn) as connection:
        await connection.execute(ENQUEUE, [Nothing.new({}).worker, count])
    process = psutil.Process()
    figures: dict[str, float] = {}
    written = 0
    done = asyncio.Event()
    async with Oban(contestant.engine, queues={"default": 20}) as oban:

        @event.listens_for(oban, "ack_stop")
        def look(oban: Oban, stop: object) -> None:
            nonlocal written
            written += stop.count  # type: ignore[attr-defined]
            if written >= count // 10 and EARLY not in figures:
                figures[EARLY] = process.memory_info().rss / 1e6
            if written >= count:
                figures[LATE] = process.memory_info().rss / 1e6
                done.set()

        await done.wait()
    await contestant.expect(contestant.finished, count)
    return Measured(figures)


WORKLOADS = (
    Workload(
        "B10",
        "the memory of a process that runs {count} jobs",
        Entrant,
        memory,
        200_000,
        (
            Target(
                "after all jobs: at most 1.05 times the memory after a tenth of them",
                within("B10", LATE, EARLY),
                at_most=1.05,
            ),
        ),
        most_runs=1,
    ),
)
