"""The database of an instance: valid URLs, and connections whose use is cancelled."""

import asyncio
import gc

import psycopg
import pytest
from sqlalchemy import func, make_url, select
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla import Oban, ObanError
from oban_sqla.dsn import connect_arguments
from oban_sqla.migrations.database import engine_for
from oban_sqla.monitor.status import status
from oban_sqla.runtime.database import Database
from tests.databases import async_engine

URL = "postgresql+psycopg://ann:secret@db/shop?sslmode=require"


@pytest.mark.parametrize(("given", "threshold"), [("none", None), ("0", 0), ("12", 12)])
def test_a_url_may_have_a_prepare_threshold(given: str, threshold: int | None) -> None:
    url, arguments = connect_arguments(make_url(f"{URL}&prepare_threshold={given}"))
    assert url == make_url(URL)
    assert arguments["prepare_threshold"] == threshold


def test_a_url_overrides_the_defaults_of_its_connections() -> None:
    given = make_url(f"{URL}&client_encoding=latin1&tcp_user_timeout=0")
    url, arguments = connect_arguments(given)
    assert url == given
    assert not {"client_encoding", "tcp_user_timeout"} & arguments.keys()
    assert {"connect_timeout", "keepalives_idle"} <= arguments.keys()


async def test_connections_notice_that_their_server_has_vanished(
    postgres_dsn: str, prefix: str
) -> None:
    oban = Oban(postgres_dsn, prefix=prefix)
    async with oban.connection() as connection:
        assert connection.info.get_parameters()["tcp_user_timeout"] == "15000"
    await oban.stop()


def test_a_url_of_another_driver_is_unchanged() -> None:
    url = make_url("postgresql+asyncpg://ann@db/shop?prepare_threshold=none")
    assert connect_arguments(url) == (url, {})


@pytest.mark.parametrize("given", ["None", "-1", "2&prepare_threshold=3"])
def test_an_invalid_threshold_is_refused(given: str) -> None:
    dsn = f"postgresql://ann:secret@db/shop?prepare_threshold={given}"
    for refuse in (Oban, engine_for):
        with pytest.raises(ValueError, match="must be a number or none") as refused:
            refuse(dsn)
        assert "secret" not in str(refused.value)


async def test_connections_have_the_prepare_threshold(postgres_dsn: str) -> None:
    separator = "&" if "?" in postgres_dsn else "?"
    oban = Oban(f"{postgres_dsn}{separator}prepare_threshold=none")
    async with oban.connection() as connection:
        assert connection.prepare_threshold is None
    await oban.stop()
    with engine_for(f"{postgres_dsn}{separator}prepare_threshold=7").connect() as connection:
        assert connection.connection.driver_connection.prepare_threshold == 7


async def test_a_cancellation_during_the_checkout_loses_no_connection(
    engine: AsyncEngine, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If only the garbage collector finds the connection, the pool logs an error."""
    database = Database(engine, prefix)
    made_ready, never = asyncio.Event(), asyncio.Event()

    async def set_late(connection: psycopg.AsyncConnection, value: bool) -> None:
        made_ready.set()
        await never.wait()

    with monkeypatch.context() as late:
        late.setattr(psycopg.AsyncConnection, "set_autocommit", set_late)
        fetching = asyncio.create_task(database.fetch(select(1)))
        await made_ready.wait()
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching
    del fetching
    gc.collect()
    assert await database.fetch(select(1)) == [(1,)]


READ_ONLY = {"options": "-c default_transaction_read_only=on"}


class TestReadOnly:
    """The role, the database or the engine makes all transactions read-only."""

    async def test_a_node_refuses_to_start_and_says_what_to_change(
        self, postgres_dsn: str, prefix: str
    ) -> None:
        engine = async_engine(postgres_dsn, prefix, connect_args=READ_ONLY)
        with pytest.raises(ObanError, match="default_transaction_read_only=off"):
            await Oban(engine, prefix=prefix, queues={"default": 1}).start()
        await engine.dispose()

    async def test_the_status_can_be_read(self, postgres_dsn: str, prefix: str) -> None:
        engine = async_engine(postgres_dsn, prefix, connect_args=READ_ONLY)
        assert (await status(Database(engine, prefix))).queues == ()
        await engine.dispose()


async def test_a_pooled_connection_that_the_server_has_closed_is_not_used(
    postgres_dsn: str, prefix: str
) -> None:
    engine = async_engine(postgres_dsn, prefix, connect_args={})
    database = Database(engine, prefix)
    ((pid,),) = await database.fetch(select(func.pg_backend_pid()))
    async with await psycopg.AsyncConnection.connect(postgres_dsn, autocommit=True) as other:
        await other.execute("SELECT pg_terminate_backend(%s, 10000)", [pid])
    ((again,),) = await database.fetch(select(func.pg_backend_pid()))
    assert again != pid
    async with database.transaction() as connection:
        assert await connection.scalar(select(func.pg_backend_pid())) == again
    await engine.dispose()
