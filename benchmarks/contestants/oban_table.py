"""Oban's table, as oban_sqla installs it, for its contestants and for the bare SQL."""

import psycopg
from sqlalchemy import create_engine

from benchmarks.contestant import Contestant
from oban_sqla.dsn import database_url
from oban_sqla.migrations import upgrade

FILL = """
INSERT INTO oban_jobs
    (worker, state, args, attempt, inserted_at, scheduled_at, attempted_at, completed_at)
SELECT 'nothing', 'completed'::oban_job_state, jsonb_build_object('number', n), 1, at, at, at, at
FROM generate_series(1, {finished}) n,
     LATERAL (SELECT timezone('UTC', now()) - n * interval '1 ms') AS past (at)
UNION ALL
SELECT 'nothing', 'scheduled', jsonb_build_object('number', n), 0, timezone('UTC', now()),
       timezone('UTC', now()) + interval '1 day' + n * interval '1 s', NULL, NULL
FROM generate_series(1, {future}) n
"""


class ObanTable(Contestant):
    waiting = "SELECT count(*) FROM oban_jobs WHERE state = 'available'"
    finished = "SELECT count(*) FROM oban_jobs WHERE state = 'completed' AND attempt = 1"

    async def install(self) -> None:
        engine = create_engine(database_url(self.dsn))
        with engine.begin() as connection:
            upgrade(connection)
        engine.dispose()

    async def fill(self, finished: int, future: int) -> None:
        async with await psycopg.AsyncConnection.connect(self.dsn) as connection:
            statement = FILL.format(finished=finished, future=future)
            await connection.execute(statement.encode())
