"""Checked by type checkers, not run: instances, and the types of `conn`."""

from typing import Any, assert_type

import psycopg
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
)
from sqlalchemy.orm import Session, scoped_session

from oban_sqla import Job, Oban, QueueInfo, Worker


class Work(Worker):
    def process(self, job: Job) -> None: ...


class Anything:
    def execute(self, sql: str, params: dict[str, Any]) -> list[tuple[Any, ...]]:
        return []


async def every_conn(
    async_session: AsyncSession,
    async_scoped: async_scoped_session[AsyncSession],
    session: Session,
    scoped: scoped_session[Session],
    async_connection: AsyncConnection,
    connection: Connection,
    async_psycopg: psycopg.AsyncConnection,
    sync_psycopg: psycopg.Connection,
) -> None:
    await Work.enqueue({}, conn=async_session)
    await Work.enqueue({}, conn=async_scoped)
    await Work.enqueue({}, conn=session)
    await Work.enqueue({}, conn=scoped)
    await Work.enqueue({}, conn=async_connection)
    await Work.enqueue({}, conn=connection)
    await Work.enqueue({}, conn=async_psycopg)
    await Work.enqueue({}, conn=async_psycopg.cursor())
    await Work.enqueue({}, conn=sync_psycopg)
    await Work.enqueue({}, conn=sync_psycopg.cursor())
    await Work.enqueue({}, conn=Anything())
    await Work.enqueue({}, conn="dsn")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


async def an_instance(engine: AsyncEngine, sessions: async_sessionmaker[AsyncSession]) -> None:
    Oban(sessions)
    Oban("postgresql://localhost/shop", notify="poll")
    Oban(3)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    async with Oban(engine, queues={"default": 10, "slow": {"limit": 1, "paused": True}}) as oban:
        assert_type(oban, Oban)
        assert_type(await oban.enqueue(Work.new({})), Job)
        assert_type(await oban.enqueue_many(Work.new({}), Work.new({})), list[Job])
        assert_type(await oban.enqueue_many(Work.new({}) for _ in range(3)), list[Job])
        assert_type(oban.check_queue("default"), QueueInfo | None)
        assert_type(oban.check_one_queue("default"), QueueInfo)
        assert_type(await oban.get_job(1), Job | None)
        assert_type(await oban.get_one_job(1), Job)
        async with oban.connection() as conn, conn.transaction():
            await oban.enqueue(Work.new({}), conn=conn)
