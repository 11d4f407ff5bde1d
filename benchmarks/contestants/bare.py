"""The floor: the bare SQL that does the same work on the rows, by psycopg, with no machinery."""

import json
from typing import Self

import psycopg

from benchmarks.contestants import oban_sqla

INSERT = """
INSERT INTO oban_jobs (worker, args)
SELECT worker, args FROM jsonb_to_recordset(%s::jsonb) AS job (worker text, args jsonb)
RETURNING id
"""
ONE = "INSERT INTO oban_jobs (worker, args) VALUES (%s, %s::jsonb) RETURNING id"
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


class Entrant(oban_sqla.Entrant):
    async def __aenter__(self) -> Self:
        self.connection = await psycopg.AsyncConnection.connect(self.dsn, autocommit=True)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.connection.close()

    async def enqueue_many(self, count: int) -> None:
        rows = [{"worker": "w", "args": {"number": n}} for n in range(count)]
        cursor = await self.connection.execute(INSERT, [json.dumps(rows)])
        await cursor.fetchall()

    async def enqueue(self) -> None:
        await self.connection.execute(ONE, ["w", json.dumps({"number": 1})])

    async def drain(self, count: int, limit: int) -> None:
        done: list[int] = []
        finished = 0
        while finished < count:
            finished += len(done)
            cursor = await self.connection.execute(NEXT, {"done": done, "limit": limit})
            done = [row[0] for row in await cursor.fetchall()]
