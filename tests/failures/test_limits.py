"""Limits over several processes hold at every instant, also when one of them is killed."""

import asyncio
import signal

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from tests.failures.conftest import Runs, Spawn, ended, enqueue, notes

pytestmark = pytest.mark.torture

Sessions = async_sessionmaker[AsyncSession]

MOST_AT_ONCE = """
    SELECT coalesce(max(at_once), 0) FROM (
        SELECT sum(step) OVER (ORDER BY at, step) AS at_once FROM (
            SELECT attempted_at AS at, 1 AS step FROM {oban_jobs} WHERE attempted_at IS NOT NULL
            UNION ALL SELECT completed_at, -1 FROM {oban_jobs} WHERE completed_at IS NOT NULL
        ) AS steps
    ) AS sums
"""


async def test_a_global_limit_is_exact_while_nodes_are_killed(
    runs: Runs, spawn: Spawn, sessions: Sessions
) -> None:
    queues = {"default": {"limit": 4, "global_limit": 5}}
    options = {"queues": queues, "heartbeat_expiry": 5.0}
    nodes = [await spawn(**options) for _ in range(3)]
    seen: set[int] = set()
    watching = asyncio.create_task(_watch(runs, seen))
    try:
        await enqueue(sessions, notes(300, 0.1))
        for done, node in zip((20, 60), nodes[:2], strict=True):
            await runs.until(lambda done=done: runs.completed() >= done)
            node.kill()
            await ended(node)
        nodes.append(await spawn(**options))
        await runs.all_completed(300)
    finally:
        watching.cancel()
        await asyncio.wait([watching])
    assert max(seen) == 5
    assert runs._query(MOST_AT_ONCE) == [(5,)]
    assert len(runs.per_job()) == 300
    nodes[2].send_signal(signal.SIGTERM)
    assert await ended(nodes[2]) == 0


async def _watch(runs: Runs, seen: set[int]) -> None:
    query = sql.SQL("SELECT count(*) FROM {} WHERE state = 'executing'")
    jobs = sql.Identifier(runs.prefix, "oban_jobs")
    async with await psycopg.AsyncConnection.connect(runs.dsn, autocommit=True) as connection:
        while True:
            cursor = await connection.execute(query.format(jobs))
            seen.update(await cursor.fetchone() or ())
            await asyncio.sleep(0.005)


MOST_OF_A_KEY = """
    SELECT max(at_once) FROM (
        SELECT sum(step) OVER (PARTITION BY key ORDER BY at, step) AS at_once FROM (
            SELECT meta->>'partition_key' AS key, attempted_at AS at, 1 AS step FROM {oban_jobs}
            UNION ALL
            SELECT meta->>'partition_key', completed_at, -1 FROM {oban_jobs}
        ) AS steps
    ) AS sums
"""
MOST_OF_AN_ACCOUNT = MOST_OF_A_KEY.replace("meta->>'partition_key'", "args->>'account'")
MOST_IN_A_SECOND = """
    SELECT max(count) FROM (
        SELECT count(*) OVER (
            ORDER BY attempted_at RANGE BETWEEN CURRENT ROW AND INTERVAL '0.999999 s' FOLLOWING
        ) FROM {oban_jobs}
    ) AS counts
"""


async def test_keys_and_a_rate_are_exact_while_a_node_is_killed(
    runs: Runs, spawn: Spawn, sessions: Sessions
) -> None:
    queues = {"default": {"limit": 10, "rate_limit": {"allowed": 30, "period": 1}}}
    options = {"queues": queues, "heartbeat_expiry": 5.0}
    nodes = [await spawn(**options) for _ in range(3)]
    jobs = notes(200, 0.02)
    for number, job in enumerate(jobs):
        key = f"key={number % 7}"
        limits = {"limit": {"id": key, "allowed": 2}}
        job.meta = {"partition_key": key, "oban_sqla_limits": limits}
    await enqueue(sessions, jobs)
    await runs.until(lambda: runs.completed() >= 40)
    nodes[0].kill()
    await ended(nodes[0])
    await runs.all_completed(200)
    assert runs._query(MOST_OF_A_KEY) == [(2,)]
    (most,) = runs._query(MOST_IN_A_SECOND)[0]
    assert most <= 30
    assert len(runs.per_job()) == 200


async def test_the_keys_of_a_queue_are_exact_while_a_node_is_killed(
    runs: Runs, spawn: Spawn, sessions: Sessions
) -> None:
    by_account = {"fields": ["args"], "keys": ["account"]}
    limit = {"allowed": 2, "partition": by_account}
    options = {"queues": {"default": {"limit": 10, "global_limit": limit}}, "heartbeat_expiry": 5.0}
    nodes = [await spawn(**options) for _ in range(3)]
    jobs = notes(200, 0.02)
    for number, job in enumerate(jobs):
        job.args = {**job.args, "account": number % 7}
    await enqueue(sessions, jobs)
    await runs.until(lambda: runs.completed() >= 40)
    nodes[0].kill()
    await ended(nodes[0])
    await runs.all_completed(200)
    assert runs._query(MOST_OF_AN_ACCOUNT) == [(2,)]
    assert len(runs.per_job()) == 200
