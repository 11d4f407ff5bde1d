"""B18: the delay of scheduled jobs while very many jobs of another queue become due."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from sqlalchemy import event

from benchmarks.contestants.oban_sqla import Entrant, Nothing, Start
from benchmarks.workload import Measured, Target, Workload, itself, percentiles
from oban_sqla import Oban

OTHERS, APART = 20, 0.1
# The queue of the many jobs is paused: only the delay of their promotion is measured.
QUEUES: dict[str, Any] = {"many": {"limit": 20, "paused": True}, "default": 20}
SCHEDULE = """
INSERT INTO oban_jobs (worker, queue, state, scheduled_at)
SELECT %s, 'many', 'scheduled', timezone('UTC', to_timestamp(%s)) FROM generate_series(1, %s)
"""
LEFT = "SELECT count(*) FROM oban_jobs WHERE state = 'scheduled'"
STAGED = "all promoted after, s"


async def due(contestant: Entrant, count: int) -> Measured:
    async with await psycopg.AsyncConnection.connect(contestant.dsn, autocommit=True) as connection:
        at = time.time() + 2
        await connection.execute(SCHEDULE, [Nothing.new({}).worker, at, count])
    late: list[float] = []
    all_started = asyncio.Event()
    async with Oban(contestant.engine, name="node", queues=QUEUES) as oban:

        @event.listens_for(oban, "job_start")
        def note(oban: Oban, begun: Any) -> None:
            late.append((begun.job.attempted_at - begun.job.scheduled_at).total_seconds())
            if len(late) == OTHERS:
                all_started.set()

        Start.told = lambda instant: None
        first = datetime.fromtimestamp(at, UTC)
        await oban.enqueue_many(
            Start.new({"at": at}, scheduled_at=first + timedelta(seconds=n * APART))
            for n in range(OTHERS)
        )
        await all_started.wait()
        await contestant.until(LEFT, 0)
        staged = time.time() - at
        await contestant.until(contestant.finished, OTHERS)
    return Measured({**percentiles(late), "longest ms": max(late) * 1000, STAGED: staged})


WORKLOADS = (
    Workload(
        "B18",
        f"{{count}} jobs of one queue are due at once: the delay of {OTHERS} jobs of another one",
        Entrant,
        due,
        200_000,
        (Target("longest delay: at most 500 ms", itself("B18", "longest ms"), at_most=500),),
        most_runs=1,
    ),
)
