"""Jobs that can't be read: each is discarded with its column, and the rest of its batch runs."""

import json
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from oban_sqla import Job, JobState, Oban, UnreadableJobError
from tests.databases import async_engine
from tests.listening import hear
from tests.runtime.conftest import Rows
from tests.runtime.workers import Quick

Sessions = async_sessionmaker[AsyncSession]

S = JobState
NEVER = {"poll_interval": 3600.0, "fallback_interval": 3600.0, "leadership": False}

HUGE = "9" * 5001

ODD = [
    ("args", f"'{{\"n\": {HUGE}}}'"),
    ("meta", f"'{{\"n\": {HUGE}}}'"),
    ("errors", f"'[{HUGE}]'"),
    ("inserted_at", "'20000-01-01'"),
    ("scheduled_at", "'-infinity'"),
    ("scheduled_at", "'infinity'"),
    ("completed_at", "'infinity'"),
]


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_unreadable_jobs_are_discarded_and_the_others_run(
    postgres_dsn: str,
    prefix: str,
    sessions: Sessions,
    expect_errors: None,
    driver: str,
) -> None:
    async with sessions.begin() as session:
        jobs = [Quick.new() for _ in range(2 * len(ODD))]
        session.add_all(jobs)
    ids = [job.id for job in jobs]
    odd, others = ids[::2], ids[1::2]
    async with await psycopg.AsyncConnection.connect(postgres_dsn) as connection:
        for id, (column, value) in zip(odd, ODD, strict=True):
            change = f'UPDATE "{prefix}".oban_jobs SET {column} = {value} WHERE id = {id}'
            await connection.execute(change.encode())
    engine = async_engine(postgres_dsn, prefix, driver)
    oban = Oban(engine, queues={"default": 9}, notify="poll", **NEVER)
    with hear(oban, "ack_stop") as acks, hear(oban, "job_exception") as exceptions:
        async with oban:
            await acks.counted(len(ids))
    await engine.dispose()
    assert sorted(Quick.ran) == others
    failed = sorted(exceptions.events, key=lambda event: event.job.id)
    assert all(isinstance(event.error, UnreadableJobError) for event in failed)
    assert [(event.job.id, event.state) for event in failed] == [(id, S.DISCARDED) for id in odd]
    async with await psycopg.AsyncConnection.connect(postgres_dsn) as connection:
        found = sql.SQL("SELECT state::text, errors::text FROM {} WHERE id = ANY(%s) ORDER BY id")
        table = sql.Identifier(prefix, "oban_jobs")
        cursor = await connection.execute(found.format(table), [odd])
        written = await cursor.fetchall()
    for id, (column, _), (state, errors) in zip(odd, ODD, written, strict=True):
        assert state == "discarded"
        assert f"the column {column} of job {id} can't be read" in errors


async def test_arguments_that_python_can_not_parse_stop_no_other_job(
    sessions: Sessions,
    postgres_dsn: str,
    prefix: str,
    rows: Rows,
    expect_errors: None,
) -> None:
    async with sessions.begin() as session:
        session.add_all([Quick.new(), Quick.new()])
    async with await psycopg.AsyncConnection.connect(postgres_dsn) as connection:
        await connection.execute("SET max_stack_depth = '6MB'")
        change = sql.SQL("UPDATE {} SET args = jsonb_build_object('deep', {}::jsonb) WHERE id = 1")
        deep = "[" * 5000 + "]" * 5000
        await connection.execute(
            change.format(sql.Identifier(prefix, "oban_jobs"), sql.Literal(deep))
        )
    oban = Oban(sessions, queues={"default": 9}, **NEVER)
    with hear(oban, "ack_stop") as acks:
        async with oban:
            await acks.counted(2)
    # Whether Python can parse it depends on its version. The other job runs in any case.
    states = [state for state, _ in await rows()]
    assert states[0] in (S.COMPLETED, S.DISCARDED)
    assert states[1] is S.COMPLETED


async def test_a_deserializer_that_raises_stops_no_other_job(
    postgres_dsn: str, prefix: str, sessions: Sessions, rows: Rows, expect_errors: None
) -> None:
    def loads(given: Any) -> Any:
        found = json.loads(given)
        if found == {"odd": True}:
            raise ValueError("not this one")
        return found

    async with sessions.begin() as session:
        session.add_all([Quick.new({"odd": True}), Quick.new({"odd": False})])
    engine = async_engine(postgres_dsn, prefix, json_deserializer=loads)
    oban = Oban(engine, queues={"default": 9}, **NEVER)
    with hear(oban, "ack_stop") as acks:
        async with oban:
            await acks.counted(2)
    await engine.dispose()
    assert await rows() == [(S.DISCARDED, 1), (S.COMPLETED, 1)]
    async with sessions() as session:
        ((error,),) = (await session.scalars(select(Job.errors).where(Job.id == 1))).all()
    assert "not this one" in error["error"]
