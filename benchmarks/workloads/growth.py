"""B12: the time of the server for a job while dead rows accumulate, since none can be removed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import psycopg
from sqlalchemy import event
from sqlalchemy.dialects.postgresql import psycopg as dialect

from benchmarks.contestants.oban_sqla import Entrant, Nothing
from benchmarks.workload import Figures, Measured, Target, Workload, within
from benchmarks.workloads.memory import ENQUEUE
from oban_sqla import Oban
from oban_sqla.statements.claim import FRONT, claim_of_queue

LIMIT = 20
TENTH = 10
CLOSED, OPEN = "no transaction open, claims, µs/job", "a transaction open, claims, µs/job"
WRITES_CLOSED, WRITES_OPEN = CLOSED.replace("claims", "writes"), OPEN.replace("claims", "writes")


async def growth(contestant: Entrant, count: int) -> Measured:
    figures: Figures = {}
    notes: dict[str, str] = {}
    for claims, writes, is_open in ((CLOSED, WRITES_CLOSED, False), (OPEN, WRITES_OPEN, True)):
        async with await psycopg.AsyncConnection.connect(
            contestant.dsn, autocommit=True
        ) as connection:
            await connection.execute("TRUNCATE oban_jobs")
            await connection.execute(ENQUEUE, [Nothing.new({}).worker, count])
            await connection.execute("VACUUM ANALYZE oban_jobs")
            async with _horizon(contestant.dsn) if is_open else nullcontext():
                figures[claims], figures[writes] = await _run(contestant, count)
                if is_open:
                    notes[f"a claim after {count:,} jobs"] = await _plan(connection)
    return Measured(figures, notes)


@asynccontextmanager
async def _horizon(dsn: str) -> AsyncIterator[None]:
    """An open transaction, for which the server keeps all dead rows."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
        await connection.execute("SELECT FROM oban_jobs LIMIT 1")
        yield
        await connection.rollback()


async def _run(contestant: Entrant, count: int) -> tuple[float, float]:
    """Microseconds per job of the last tenth, in claims and in writes of outcomes."""
    took = {"claim_stop": 0.0, "ack_stop": 0.0}
    jobs = dict.fromkeys(took, 0)
    seen = dict.fromkeys(took, 0)
    done = asyncio.Event()

    def note(name: str, stop: Any) -> None:
        seen[name] += stop.count
        if seen[name] > count - count // TENTH:
            jobs[name] += stop.count
            took[name] += stop.duration
        if seen["ack_stop"] == count:
            done.set()

    oban = Oban(contestant.engine, queues={"default": LIMIT})
    event.listen(oban, "claim_stop", lambda oban, stop: note("claim_stop", stop))
    event.listen(oban, "ack_stop", lambda oban, stop: note("ack_stop", stop))
    async with oban:
        await done.wait()
    await contestant.expect(contestant.finished, count)
    claims, writes = (took[name] / jobs[name] * 1e6 for name in took)
    return claims, writes


async def _plan(connection: psycopg.AsyncConnection) -> str:
    """The plan of a claim that starts at the front of the queue."""
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
        "the last tenth of {count} jobs, while an open transaction keeps all dead rows",
        Entrant,
        growth,
        300_000,
        (
            Target(
                "claims: at most 1.5 times the time without that transaction",
                within("B12", OPEN, CLOSED),
                at_most=1.5,
            ),
            Target(
                "writes of outcomes: at most 1.5 times the time without it",
                within("B12", WRITES_OPEN, WRITES_CLOSED),
                at_most=1.5,
            ),
        ),
        most_runs=1,
    ),
)
