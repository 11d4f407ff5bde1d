"""Limits over many processes: exact at every instant, also when one of them is killed."""

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
