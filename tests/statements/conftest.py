"""Fixtures of the tests of statements: connections on which each statement is a transaction."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import Executable, literal, select, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker

from oban_sqla import Job

Find = Callable[[int], Awaitable[Job]]
Run = Callable[..., Awaitable[list[Any]]]
WithMeta = Callable[[int, Any], Awaitable[None]]


@pytest.fixture
async def connection(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        yield connection


@pytest.fixture
def run(connection: AsyncConnection) -> Run:
    """Run a statement, and return its rows."""

    async def run(statement: Executable, **params: Any) -> list[Any]:
        result = await connection.execute(statement, params)
        return list(result.all()) if result.returns_rows else []

    return run


@pytest.fixture
def find(sessions: async_sessionmaker[AsyncSession]) -> Find:
    """The current row of a job, as an instance."""

    async def find(id: int) -> Job:
        async with sessions() as session:
            return (await session.scalars(select(Job).where(Job.id == id))).one()

    return find


@pytest.fixture
def with_meta(run: Run) -> WithMeta:
    """Give a job a meta that only other programs write: any JSON."""

    async def with_meta(id: int, meta: Any) -> None:
        value = literal(meta, JSONB(none_as_null=False))
        await run(update(Job).where(Job.id == id).values(meta=value))

    return with_meta
