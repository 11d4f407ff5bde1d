"""B12: what a claim costs with more and more jobs that wait, while dead rows can't be removed."""

import asyncio
import statistics
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
from sqlalchemy import event
from sqlalchemy.dialects.postgresql import psycopg as dialect

from benchmarks.contestants.oban_sqla import Entrant, Nothing
from benchmarks.workload import Figures, Measured, Target, Workload, within
from benchmarks.workloads.memory import ENQUEUE
from oban_sqla import Oban
from oban_sqla.statements.claim import FRONT, claim_of_queue

LIMIT = 20
CLAIMS = 200
MOST_JOBS = 1_000_000
LEAST, MORE, MOST = (f"{part} of the jobs wait, ms" for part in ("1/100", "1/10", "all"))
FIRST, LAST = "all wait, first claims, ms", "all wait, last claims, ms"


async def growth(contestant: Entrant, most: int) -> Measured:
    figures: Figures = {}
    notes: dict[str, str] = {}
    for name, waiting in ((LEAST, most // 100), (MORE, most // 10), (MOST, most)):
        waiting = max(waiting, 3 * LIMIT)
        async with await psycopg.AsyncConnection.connect(
            contestant.dsn, autocommit=True
        ) as connection:
            await connection.execute("TRUNCATE oban_jobs")
            await connection.execute(ENQUEUE, [Nothing.new({}).worker, waiting])
            await connection.execute("VACUUM ANALYZE oban_jobs")
            async with _horizon(contestant.dsn):
                claims = max(10, CLAIMS * most // MOST_JOBS)
                took = await _claim(contestant, min(claims, waiting // LIMIT - 1))
                notes[f"{waiting:,} jobs wait, after {len(took)} claims"] = await _plan(connection)
        figures[name] = statistics.median(took) * 1000
        fifth = max(1, len(took) // 5)
    figures[FIRST] = statistics.median(took[:fifth]) * 1000
    figures[LAST] = statistics.median(took[-fifth:]) * 1000
    return Measured(figures, notes)


@asynccontextmanager
async def _horizon(dsn: str) -> AsyncIterator[None]:
    """A transaction that still sees the table as it was."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
        await connection.execute("SELECT FROM oban_jobs LIMIT 1")
        yield
        await connection.rollback()


async def _claim(contestant: Entrant, claims: int) -> list[float]:
    """The seconds of so many claims of a node, each with the outcomes of the jobs before."""
    before = await contestant.number(contestant.waiting)
    took: list[float] = []
    enough = asyncio.Event()
    async with Oban(contestant.engine, queues={"default": LIMIT}) as oban:

        @event.listens_for(oban, "claim_stop")
        def note(oban: Oban, stop: object) -> None:
            took.append(stop.duration)  # type: ignore[attr-defined]
            if len(took) == claims:
                enough.set()

        await enough.wait()
    left = await contestant.number(contestant.waiting)
    await contestant.expect(contestant.finished, before - left)
    return took[:claims]


async def _plan(connection: psycopg.AsyncConnection) -> str:
    """How the server carries out a claim, and what that reads."""
    compiled = claim_of_queue().compile(dialect=dialect.dialect())
    parameters = {
        **compiled.params,
        **FRONT,
        "queue_name": "default",
        "limit": LIMIT,
        "node_name": "node",
        "producer": "producer",
    }
    async with connection.transaction(force_rollback=True):
        cursor = await connection.execute(
            f"EXPLAIN (ANALYZE, BUFFERS, COSTS OFF) {compiled}".encode(), parameters
        )
        return "\n".join(line for (line,) in await cursor.fetchall())


WORKLOADS = (
    Workload(
        "B12",
        f"claims of {LIMIT} of up to {{count}} jobs, while a transaction keeps all dead rows alive",
        Entrant,
        growth,
        MOST_JOBS,
        (
            Target(
                "with all of them at most 2 times with a hundredth",
                within("B12", MOST, LEAST),
                at_most=2,
            ),
            Target(
                "the last claims at most 2 times the first",
                within("B12", LAST, FIRST),
                at_most=2,
            ),
        ),
        most_runs=1,
    ),
)
