"""Bare SQL, sent by psycopg: the statements of a queue, without a queue around them."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Self

import psycopg

from benchmarks.contestant import Drains, Enqueues, Started, Starts
from benchmarks.contestants.oban_table import ObanTable

INSERT = """
INSERT INTO oban_jobs (worker, args)
SELECT worker, args FROM jsonb_to_recordset(%s::jsonb) AS job (worker text, args jsonb)
RETURNING id
"""
ONE = "INSERT INTO oban_jobs (worker, args) VALUES (%s, %s::jsonb) RETURNING id"
START_NOW = """
WITH new AS (INSERT INTO oban_jobs (worker, args) VALUES ('w', %s::jsonb) RETURNING id)
SELECT id, pg_notify('bare', '') FROM new
"""
START_AT = """
WITH new AS (
    INSERT INTO oban_jobs (worker, args, state, scheduled_at)
    VALUES ('w', %s::jsonb, 'scheduled', timezone('UTC', to_timestamp(%s))) RETURNING id
)
SELECT id, pg_notify('bare', '') FROM new
"""
NEXT = """
WITH done AS (
    UPDATE oban_jobs SET state = 'completed', completed_at = timezone('UTC', now())
    WHERE id = ANY(%(done)s) AND state = 'executing'
), next AS (
    SELECT id FROM oban_jobs WHERE state = 'available' AND queue = 'default'
    ORDER BY priority, scheduled_at, id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
UPDATE oban_jobs
SET state = 'executing', attempt = attempt + 1, attempted_at = timezone('UTC', now()),
    attempted_by = '{bare}'
WHERE id = ANY(ARRAY(SELECT id FROM next))
RETURNING oban_jobs.*
"""
STAGE = """
UPDATE oban_jobs SET state = 'available'
WHERE state = 'scheduled' AND scheduled_at <= timezone('UTC', clock_timestamp())
"""
DUE = """
SELECT extract(epoch FROM min(scheduled_at) - timezone('UTC', clock_timestamp()))::float
FROM oban_jobs WHERE state = 'scheduled'
"""
ARGS = 7  # the position of the column


class Entrant(ObanTable, Enqueues, Drains, Starts):
    async def __aenter__(self) -> Self:
        self.connection = await self._connect()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.connection.close()

    async def _connect(self) -> psycopg.AsyncConnection:
        return await psycopg.AsyncConnection.connect(self.dsn, autocommit=True)

    async def enqueue_many(self, count: int) -> None:
        rows = [{"worker": "w", "args": {"number": n}} for n in range(count)]
        cursor = await self.connection.execute(INSERT, [json.dumps(rows)])
        await cursor.fetchall()

    async def enqueue(self) -> None:
        await self.connection.execute(ONE, ["w", json.dumps({"number": 1})])

    @asynccontextmanager
    async def clients(self, count: int) -> AsyncIterator[Sequence[Callable[[], Awaitable[object]]]]:
        async with AsyncExitStack() as stack:
            connections = [
                await stack.enter_async_context(await self._connect()) for _ in range(count)
            ]
            yield [partial(one.execute, ONE, ["w", '{"number": 1}']) for one in connections]

    async def drain(self, count: int, limit: int) -> None:
        done: list[int] = []
        finished = 0
        while finished < count:
            finished += len(done)
            cursor = await self.connection.execute(NEXT, {"done": done, "limit": limit})
            done = [row[0] for row in await cursor.fetchall()]

    @asynccontextmanager
    async def node(self, started: Started) -> AsyncIterator[None]:
        async with await self._connect() as listening, await self._connect() as working:
            await listening.execute("LISTEN bare")
            running = asyncio.create_task(self._run(started, listening, working))
            yield
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

    async def _run(
        self, started: Started, listening: psycopg.AsyncConnection, working: psycopg.AsyncConnection
    ) -> None:
        while True:
            await working.execute(STAGE)
            done: list[int] = []
            while True:
                cursor = await working.execute(NEXT, {"done": done, "limit": 20})
                rows = await cursor.fetchall()
                for row in rows:
                    started(row[ARGS]["at"])
                done = [row[0] for row in rows]
                if not done:
                    break
            row = await (await working.execute(DUE)).fetchone()
            assert row is not None
            timeout = None if row[0] is None else max(0.0, row[0])
            async for _ in listening.notifies(timeout=timeout, stop_after=1):
                pass

    async def start_now(self) -> None:
        await self.connection.execute(START_NOW, [json.dumps({"at": time.monotonic()})])

    async def start_at(self, due: float) -> None:
        await self.connection.execute(START_AT, [json.dumps({"at": due}), due])
