"""Statements sent through libpq: rows, errors, cancellations and lost connections."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Any

import psycopg
import pytest
from psycopg import Pipeline

from oban_sqla.runtime.direct_connection import DirectConnection, Statement
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


Sends = Callable[[DirectConnection, Statement], Awaitable[list[tuple[Any, ...]]]]


async def alone(direct: DirectConnection, statement: Statement) -> list[tuple[Any, ...]]:
    return await direct.fetch(*statement)


async def behind(direct: DirectConnection, statement: Statement) -> list[tuple[Any, ...]]:
    return await direct.fetch_behind((b"SELECT 'first'", []), statement)


async def before(direct: DirectConnection, statement: Statement) -> list[tuple[Any, ...]]:
    return await direct.fetch_behind(statement, (b"SELECT 'then'", []))


sends = pytest.mark.parametrize("send", [alone, behind, before])


async def long_call(
    send: Sends, direct: DirectConnection, outside: psycopg.AsyncConnection, pid: int
) -> asyncio.Task[Any]:
    """A call whose statement the server executes."""
    call = asyncio.ensure_future(send(direct, (b"SELECT pg_sleep(100)", [])))
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


@sends
async def test_a_long_statement_is_sent_in_parts(send: Sends, direct: DirectConnection) -> None:
    text = "x" * 20_000_000
    rows = [(len(text),)] if send is not before else [("then",)]
    assert await send(direct, (b"SELECT length($1::text)", [text])) == rows


@pytest.mark.parametrize("threshold", [5, None])
@pytest.mark.parametrize("pipelines", [True, False])
async def test_a_statement_behind_another_one_shares_its_transaction(
    driver: psycopg.AsyncConnection,
    direct: DirectConnection,
    monkeypatch: pytest.MonkeyPatch,
    pipelines: bool,
    threshold: int | None,
) -> None:
    if not pipelines:
        monkeypatch.setattr(Pipeline, "is_supported", lambda: False)
    driver.prepare_threshold = threshold
    setting = b"SELECT current_setting('own.name', true), current_setting('transaction_isolation')"
    await direct.fetch(b"SET default_transaction_isolation TO serializable", [])
    for value in ("7", "8", "9"):
        first = b"SELECT set_config('own.name', $1::text, true), generate_series(1, 3)", [value]
        assert await direct.fetch_behind(first, (setting, [])) == [(value, "read committed")]
        assert await direct.fetch(setting, []) == [("", "serializable")]


@pytest.mark.parametrize("send", [behind, before])
async def test_an_error_ends_the_transaction_of_both_statements(
    send: Sends,
    driver: psycopg.AsyncConnection,
    direct: DirectConnection,
    outside: psycopg.AsyncConnection,
) -> None:
    key = driver.info.backend_pid
    failing = b"SELECT pg_advisory_xact_lock($1::int), 1 / ($1::int - $1::int)", [key]
    with pytest.raises(psycopg.errors.DivisionByZero):
        await send(direct, failing)
    free: Any = await outside.execute("SELECT pg_try_advisory_xact_lock(%s)", [key])
    assert await free.fetchone() == (True,)


async def test_nothing_is_sent_if_a_value_of_the_second_statement_is_bad(
    direct: DirectConnection,
) -> None:
    with pytest.raises(psycopg.DataError, match="NUL"):
        await behind(direct, (b"SELECT $1::text", ["\0"]))
    assert await direct.fetch(b"SELECT 1", []) == [(1,)]


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


@sends
async def test_a_cancelled_call_cancels_its_statement(
    send: Sends,
    driver: psycopg.AsyncConnection,
    direct: DirectConnection,
    outside: psycopg.AsyncConnection,
) -> None:
    pid = driver.info.backend_pid
    sleeping = await long_call(send, direct, outside, pid)
    sleeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeping
    assert not direct.is_usable

    async def is_idle() -> bool:
        return not await is_active(outside, pid)

    await until(is_idle)


@sends
async def test_a_cancelled_call_waits_for_the_end_of_its_statement(
    send: Sends,
    driver: psycopg.AsyncConnection,
    direct: DirectConnection,
    outside: psycopg.AsyncConnection,
) -> None:
    """A cancelled claim may have been carried out: only then is it certain whether it was."""
    pid = driver.info.backend_pid
    sleeping = await long_call(send, direct, outside, pid)
    sleeping.cancel()
    await asyncio.wait([sleeping])
    ended = (psycopg.pq.TransactionStatus.IDLE, psycopg.pq.TransactionStatus.INERROR)
    assert driver.pgconn.transaction_status in ended
    assert not await is_active(outside, pid)


async def test_a_connection_that_the_server_closes_is_not_usable(
    driver: psycopg.AsyncConnection, direct: DirectConnection, outside: psycopg.AsyncConnection
) -> None:
    await outside.execute("SELECT pg_terminate_backend(%s)", [driver.info.backend_pid])
    await until(lambda: not direct.is_usable)


@sends
async def test_a_statement_whose_connection_is_lost_fails(
    send: Sends,
    driver: psycopg.AsyncConnection,
    direct: DirectConnection,
    outside: psycopg.AsyncConnection,
) -> None:
    pid = driver.info.backend_pid
    sleeping = await long_call(send, direct, outside, pid)
    await outside.execute("SELECT pg_terminate_backend(%s)", [pid])
    with pytest.raises(psycopg.OperationalError):
        await sleeping
    await until(lambda: not direct.is_usable)
