"""Statements sent through libpq: rows, errors, cancellations and lost connections."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import psycopg
import pytest

from oban_sqla.runtime.direct_connection import DirectConnection
from tests.runtime.conftest import until

BUSY = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND state = 'active'"


@pytest.fixture
async def driver(postgres_dsn: str) -> AsyncIterator[psycopg.AsyncConnection]:
    async with await psycopg.AsyncConnection.connect(postgres_dsn, autocommit=True) as driver:
        yield driver


@pytest.fixture
async def direct(driver: psycopg.AsyncConnection) -> AsyncIterator[DirectConnection]:
    direct = DirectConnection(driver)
    direct.attach()
    yield direct
    direct.release()


@pytest.fixture
async def outside(postgres_dsn: str) -> AsyncIterator[psycopg.AsyncConnection]:
    async with await psycopg.AsyncConnection.connect(postgres_dsn, autocommit=True) as outside:
        yield outside


async def is_active(outside: psycopg.AsyncConnection, pid: int) -> bool:
    row: Any = await (await outside.execute(BUSY, [pid])).fetchone()
    return bool(row[0])


async def long_call(
    direct: DirectConnection, outside: psycopg.AsyncConnection, pid: int
) -> asyncio.Task[Any]:
    """A call whose statement the server executes."""
    call = asyncio.create_task(direct.fetch(b"SELECT pg_sleep(100)", []))
    await until(lambda: is_active(outside, pid))
    return call


@pytest.mark.parametrize("threshold", [5, None])
async def test_rows_have_the_values_of_psycopg(
    driver: psycopg.AsyncConnection, direct: DirectConnection, threshold: int | None
) -> None:
    driver.prepare_threshold = threshold
    text = b"SELECT $1::text, $2::bigint, NULL, timestamp '2026-12-01 01:02:03', ARRAY[1, 2]"
    for _ in range(3):
        rows = await direct.fetch(text, ["grüße", "7"])
        assert rows == [("grüße", 7, None, datetime(2026, 12, 1, 1, 2, 3), [1, 2])]
    prepared = b"SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'oban_sqla%'"
    assert await direct.fetch(prepared, []) == [(0 if threshold is None else 1,)]


async def test_values_are_sent_as_psycopg_writes_them(direct: DirectConnection) -> None:
    given = [7, None, datetime(2026, 12, 1, 1, 2, 3), [1, 2], "\\N 'x'", True]
    text = b"SELECT $1::int, $2::text, $3::timestamp, $4::bigint[], $5::text, $6::boolean"
    assert await direct.fetch(text, given) == [tuple(given)]
    with pytest.raises(psycopg.DataError, match="NUL"):
        await direct.fetch(b"SELECT $1::text", ["\0"])
    assert direct.is_usable


async def test_a_released_connection_is_psycopgs_again(driver: psycopg.AsyncConnection) -> None:
    for _ in range(2):
        direct = DirectConnection(driver)
        direct.attach()
        assert await direct.fetch(b"SELECT 1", []) == [(1,)], "prepared before, the second time"
        direct.release()
        assert not direct.is_usable
        assert await (await driver.execute("SELECT 2")).fetchone() == (2,)


async def test_a_long_statement_is_sent_in_parts(direct: DirectConnection) -> None:
    text = "x" * 20_000_000
    assert await direct.fetch(b"SELECT length($1::text)", [text]) == [(len(text),)]


async def test_an_error_of_the_database_has_its_class(direct: DirectConnection) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero, match="division by zero"):
        await direct.fetch(b"SELECT 1 / $1::int", ["0"])
    with pytest.raises(psycopg.errors.SyntaxError):
        await direct.fetch(b"SELEC 1", [])
    assert direct.is_usable
    assert await direct.fetch(b"SELECT 1 / $1::int", ["1"]) == [(1,)]


async def test_an_error_of_the_commit_is_raised(direct: DirectConnection) -> None:
    """A deferred constraint is checked at the commit, after the rows have come."""
    await direct.fetch(b"CREATE TEMP TABLE one (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)", [])
    await direct.fetch(b"INSERT INTO one VALUES (1)", [])
    with pytest.raises(psycopg.errors.UniqueViolation):
        await direct.fetch(b"INSERT INTO one VALUES (1) RETURNING id", [])
    assert await direct.fetch(b"SELECT * FROM one", []) == [(1,)]


async def test_a_cancelled_call_cancels_its_statement(
    driver: psycopg.AsyncConnection, direct: DirectConnection, outside: psycopg.AsyncConnection
) -> None:
    pid = driver.info.backend_pid
    sleeping = await long_call(direct, outside, pid)
    sleeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeping
    assert not direct.is_usable

    async def is_idle() -> bool:
        return not await is_active(outside, pid)

    await until(is_idle)


async def test_a_cancelled_call_waits_for_the_end_of_its_statement(
    driver: psycopg.AsyncConnection, direct: DirectConnection, outside: psycopg.AsyncConnection
) -> None:
    """A cancelled claim may have been carried out: only then is it certain whether it was."""
    pid = driver.info.backend_pid
    sleeping = await long_call(direct, outside, pid)
    sleeping.cancel()
    await asyncio.wait([sleeping])
    assert driver.pgconn.transaction_status == psycopg.pq.TransactionStatus.IDLE
    assert not await is_active(outside, pid)


async def test_a_connection_that_the_server_closes_is_not_usable(
    driver: psycopg.AsyncConnection, direct: DirectConnection, outside: psycopg.AsyncConnection
) -> None:
    await outside.execute("SELECT pg_terminate_backend(%s)", [driver.info.backend_pid])
    await until(lambda: not direct.is_usable)


async def test_a_statement_whose_connection_is_lost_fails(
    driver: psycopg.AsyncConnection, direct: DirectConnection, outside: psycopg.AsyncConnection
) -> None:
    pid = driver.info.backend_pid
    sleeping = await long_call(direct, outside, pid)
    await outside.execute("SELECT pg_terminate_backend(%s)", [pid])
    with pytest.raises(psycopg.OperationalError):
        await sleeping
    await until(lambda: not direct.is_usable)
