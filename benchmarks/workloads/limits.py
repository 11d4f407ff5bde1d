"""B30 to B32: a limit over all nodes, limits by key, and a rate. None may be exceeded."""

import asyncio
import json
import time
from contextlib import AsyncExitStack
from typing import Any

import psycopg
from sqlalchemy import event
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.contestants.oban_sqla import Entrant
from benchmarks.workload import Figures, Measured, Target, Workload, itself, within
from oban_sqla import Job, Limit, Oban, Rate, Worker
from oban_sqla.dsn import database_url

LIMIT, GLOBAL_LIMIT = 20, 50
KEYS = 10_000
# A queue with a limited worker claims by keys, so the limited workers have their own queue.
LIMITED = "limited"
RATE, SECONDS = 500, 20
PATIENCE = 60.0

AT_ONCE = """
SELECT max(at_once) FROM (
    SELECT sum(step) OVER (ORDER BY at, step) AS at_once FROM (
        SELECT attempted_at AS at, 1 AS step FROM oban_jobs WHERE attempted_at IS NOT NULL
        UNION ALL SELECT completed_at, -1 FROM oban_jobs WHERE completed_at IS NOT NULL
    ) AS steps
) AS sums
"""
IN_A_SECOND = """
SELECT max(count) FROM (
    SELECT count(*) OVER (
        ORDER BY attempted_at RANGE BETWEEN CURRENT ROW AND INTERVAL '0.999999 s' FOLLOWING
    ) AS count FROM oban_jobs WHERE attempted_at IS NOT NULL
) AS counts
"""
STARTED = """
SELECT count(*) FROM oban_jobs WHERE attempted_at <
(SELECT min(attempted_at) FROM oban_jobs) + make_interval(secs => %s)
"""

FREE, ONE, FOUR = "no limit, jobs/s", "1 node, jobs/s", "4 nodes, jobs/s"
MOST = "most at once"
PLAIN, FEW, MANY = "no keys, ms/claim", "10,000 waiting, ms/claim", "1,000,000 waiting, ms/claim"
FULL = "behind a full key, ms/claim"
STARTS, PEAK = "starts", "most in a second"


class Keyed(Worker, name="benchmarks.keyed", queue=LIMITED, limit=Limit(2, by="key")):
    async def process(self, job: Job) -> None: ...


class Single(Worker, name="benchmarks.single", queue=LIMITED, limit=Limit(1, by="key")):
    async def process(self, job: Job) -> None:
        await asyncio.sleep(PATIENCE)


class Rated(Worker, name="benchmarks.rated", queue=LIMITED, rate=Rate(RATE, per=1)):
    async def process(self, job: Job) -> None: ...


async def global_limit(contestant: Entrant, count: int) -> Measured:
    limited = {"default": {"limit": LIMIT, "global_limit": GLOBAL_LIMIT}}
    free, _ = await _drain(contestant, count, {"default": LIMIT}, claim_ahead=0)
    one, _ = await _drain(contestant, count, limited)
    await _empty(contestant)
    four, _ = await _drain(contestant, count, limited, nodes=4)
    most = await contestant.number(AT_ONCE)
    assert most <= GLOBAL_LIMIT, f"{most} jobs were executing at once"
    return Measured({FREE: free, ONE: one, FOUR: four, MOST: most})


async def keys(contestant: Entrant, count: int) -> Measured:
    """Run `count` jobs while many more wait, which SQL has inserted."""
    _, plain = await _drain(contestant, count, {"default": LIMIT}, claim_ahead=0)
    queues = {LIMITED: LIMIT}
    figures: Figures = {PLAIN: plain}
    for name, each in ((FEW, 1), (MANY, 100)):
        await _empty(contestant)
        await _fill(contestant, KEYS * each)
        _, figures[name] = await _run(contestant, count, queues, 1)
    await _empty(contestant)
    await contestant.client.enqueue_many(Single.new({"key": "full"}) for _ in range(10 * count))
    await _fill(contestant, count, keys=100)
    _, figures[FULL] = await _run(contestant, count, queues, 1)
    return Measured(figures)


async def rate(contestant: Entrant, count: int) -> Measured:
    """Run two nodes for the time in which the rate allows `count` starts."""
    seconds = max(2, count // RATE)
    await contestant.client.enqueue_many(Rated.new() for _ in range(RATE * (seconds + 5)))
    async with AsyncExitStack() as stack:
        for node in "ab":
            await stack.enter_async_context(await _node(stack, contestant, node, {LIMITED: 20}))
        await asyncio.sleep(seconds + 1)
    async with await psycopg.AsyncConnection.connect(contestant.dsn) as connection:
        row = await (await connection.execute(STARTED, [seconds])).fetchone()
    assert row is not None
    peak = await contestant.number(IN_A_SECOND)
    assert peak <= RATE, f"{peak} jobs started within a second"
    return Measured({STARTS: row[0] / (RATE * seconds), PEAK: peak})


async def _drain(
    contestant: Entrant, count: int, queues: dict[str, Any], *, nodes: int = 1, **options: Any
) -> tuple[float, float]:
    await contestant.enqueue_many(count)
    return await _run(contestant, count, queues, nodes, **options)


async def _run(
    contestant: Entrant, count: int, queues: dict[str, Any], nodes: int, **options: Any
) -> tuple[float, float]:
    """Jobs per second, and milliseconds of a claim that returned jobs."""
    done, claims = asyncio.Event(), []
    written = 0

    def add(oban: Oban, stop: Any) -> None:
        nonlocal written
        written += stop.count
        if written >= count:
            done.set()

    def claimed(oban: Oban, stop: Any) -> None:
        if stop.count:
            claims.append(stop.duration)

    async with AsyncExitStack() as stack:
        started = time.perf_counter()
        for number in range(nodes):
            oban = await _node(stack, contestant, f"node {number}", queues, **options)
            event.listen(oban, "ack_stop", add)
            event.listen(oban, "claim_stop", claimed)
            await stack.enter_async_context(oban)
        async with asyncio.timeout(PATIENCE):
            await done.wait()
        took = time.perf_counter() - started
    return count / took, 1000 * sorted(claims)[len(claims) // 2]


async def _node(
    stack: AsyncExitStack, contestant: Entrant, name: str, queues: dict[str, Any], **options: Any
) -> Oban:
    engine = create_async_engine(database_url(contestant.dsn))
    stack.push_async_callback(engine.dispose)
    options |= {"node": name, "name": name, "shutdown_grace_period": 0.1}
    return Oban(engine, queues=queues, **options)


async def _empty(contestant: Entrant) -> None:
    async with await psycopg.AsyncConnection.connect(contestant.dsn, autocommit=True) as connection:
        await connection.execute("TRUNCATE oban_jobs, oban_sqla_starts, oban_sqla_rates")


async def _fill(contestant: Entrant, count: int, keys: int = KEYS) -> None:
    """Insert jobs of `Keyed`, whose keys take turns."""
    meta = json.dumps(Keyed.new({"key": "KEY"}).meta)
    fill = """
        INSERT INTO oban_jobs (worker, queue, meta)
        SELECT %s, %s, replace(%s, 'KEY', (n %% %s)::text)::jsonb FROM generate_series(1, %s) AS n
    """
    async with await psycopg.AsyncConnection.connect(contestant.dsn, autocommit=True) as connection:
        await connection.execute(fill, [Keyed.__oban__.name, LIMITED, meta, keys, count])
        await connection.execute("ANALYZE oban_jobs")


WORKLOADS = (
    Workload(
        "B30",
        "run {count} jobs of a queue with a limit over all nodes",
        Entrant,
        global_limit,
        10_000,
        (
            Target("at least 0.8 times the rate without the limit", within("B30", ONE, FREE), 0.8),
            Target(
                "4 nodes: at least 0.5 times the rate of one node", within("B30", FOUR, ONE), 0.5
            ),
            Target("at most 50 jobs at once", itself("B30", MOST), at_most=GLOBAL_LIMIT),
        ),
    ),
    Workload(
        "B31",
        f"run {{count}} jobs with a limit per key and {KEYS:,} keys",
        Entrant,
        keys,
        5_000,
        (
            Target(
                "10,000 jobs wait: at most 3 times the claim time without keys",
                within("B31", FEW, PLAIN),
                at_most=3,
            ),
            Target(
                "1,000,000 jobs wait: at most 3 times the claim time without keys",
                within("B31", MANY, PLAIN),
                at_most=3,
            ),
            Target(
                "behind a key at its limit: at most 3 times the claim time without keys",
                within("B31", FULL, PLAIN),
                at_most=3,
            ),
        ),
        most_runs=1,
    ),
    Workload(
        "B32",
        f"start {{count}} jobs on 2 nodes, at a rate of {RATE} per second: the share that started",
        Entrant,
        rate,
        RATE * SECONDS,
        (
            Target("at least 99 %", itself("B32", STARTS), 0.99),
            Target("at most 101 %", itself("B32", STARTS), at_most=1.01),
            Target("at most 500 starts in any second", itself("B32", PEAK), at_most=RATE),
        ),
        most_runs=1,
    ),
)
