"""A read-only transaction can't enqueue. The error comes before the server breaks it."""

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from oban_sqla import Job, ObanError
from tests.databases import async_engine, sync_engine
from tests.runtime.workers import Quick


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_a_session_goes_on_after_the_error(
    postgres_dsn: str, prefix: str, driver: str
) -> None:
    engine = async_engine(postgres_dsn, prefix, driver)
    reader = engine.execution_options(postgresql_readonly=True)
    async with AsyncSession(reader) as session:
        job = await Quick.enqueue({}, conn=session)
        with pytest.raises(ObanError, match="the transaction is read-only"):
            await session.flush()
        session.expunge(job)
        assert (await session.execute(text("SELECT 1"))).scalar_one() == 1
    await engine.dispose()


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
async def test_a_sync_connection_goes_on_after_the_error(
    postgres_dsn: str, prefix: str, driver: str
) -> None:
    engine = sync_engine(postgres_dsn, prefix, driver)
    with engine.connect().execution_options(postgresql_readonly=True) as connection:
        with pytest.raises(ObanError, match="the transaction is read-only"):
            await Quick.enqueue({}, conn=connection)
        assert connection.execute(text("SELECT 1")).scalar_one() == 1
    engine.dispose()


async def test_a_connection_of_psycopg_goes_on_after_the_error(
    postgres_dsn: str, prefix: str
) -> None:
    async with await psycopg.AsyncConnection.connect(
        postgres_dsn, options=f"-c search_path={prefix}"
    ) as connection:
        await connection.set_read_only(True)
        with pytest.raises(ObanError, match="the transaction is read-only"):
            await Quick.enqueue({}, conn=connection)
        await connection.execute("SELECT 1")
        await connection.rollback()
        # Without transactions, psycopg can't make them read-only.
        await connection.set_autocommit(True)
        await Quick.enqueue({}, conn=connection)


async def test_the_error_of_the_server_has_a_note(postgres_dsn: str, prefix: str) -> None:
    engine = async_engine(postgres_dsn, prefix)
    async with AsyncSession(engine) as session:
        await session.execute(text("SET TRANSACTION READ ONLY"))
        session.add(Job("read_only.any"))
        with pytest.raises(DBAPIError) as raised:
            await session.flush()
    await engine.dispose()
    assert "enqueue in a transaction that may write" in raised.value.__notes__[0]
