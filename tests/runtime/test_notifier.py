"""The notifier hears NOTIFY, checks that it does, and reports once if it does not."""

import asyncio
import base64
import gzip
import json
import logging
from collections.abc import Callable, Iterator
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import asyncpg
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from sqlalchemy import func, make_url, select
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from oban_sqla import JobState, Oban
from oban_sqla.runtime import listening as listening_module
from oban_sqla.runtime import notifier as notifier_module
from oban_sqla.runtime.database import Database
from oban_sqla.runtime.notifier import Notifier, decode
from tests.conftest import StartOban, Tune
from tests.databases import async_engine
from tests.listening import hear
from tests.proxy import Proxy
from tests.runtime.conftest import until
from tests.runtime.workers import Quick
from tests.services import services

Sessions = async_sessionmaker[AsyncSession]

S = JobState
# No poll can have found a job that starts within the patience of the tests.
NEVER = {"poll_interval": 3600.0, "fallback_interval": 3600.0}


@pytest.fixture
def quick_proof(tune: Tune) -> None:
    """Check LISTEN often, and wait only briefly for the echo."""
    tune(notifier_module, PROOF_INTERVAL=0.05, ECHO_TIMEOUT=0.2)


def of(oban: Oban) -> Notifier:
    return services(oban).notifier


async def listening(oban: Oban) -> None:
    await until(lambda: of(oban).listening)


async def enqueue(sessions: Sessions) -> None:
    async with sessions.begin() as session:
        session.add(Quick.new())


def notify(dsn: str, prefix: str, channel: str, payload: str) -> None:
    """Send a NOTIFY, like another process."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SELECT pg_notify(%s, %s)", [f"{prefix}.{channel}", payload])


async def test_jobs_of_another_process_start_at_once(
    start: StartOban, postgres_dsn: str, prefix: str
) -> None:
    oban = await start(queues={"default": 5}, **NEVER)
    await listening(oban)
    with hear(oban, "ack_stop") as acks, psycopg.connect(postgres_dsn) as connection:
        await Quick.enqueue({}, conn=connection)
        connection.commit()
        await acks.counted(1)


async def test_an_engine_on_asyncpg_gets_notifications(
    start: StartOban, postgres_dsn: str, prefix: str, sessions: Sessions
) -> None:
    engine = async_engine(postgres_dsn, prefix, "asyncpg")
    async with Oban(engine, queues={"default": 5}, **NEVER) as oban:
        await listening(oban)
        with hear(oban, "ack_stop") as acks:
            await enqueue(sessions)
            await acks.counted(1)
    await engine.dispose()


async def connect_with_asyncpg(dsn: str) -> Any:
    given = make_url(dsn)
    return await asyncpg.connect(
        host=given.query.get("host", given.host),
        port=given.port,
        user=given.username,
        password=given.password,
        database=given.database,
    )


def ssl_in_the_url(dsn: str) -> AsyncEngine:
    url = make_url(dsn).set(drivername="postgresql+asyncpg")
    return create_async_engine(url.update_query_dict({"ssl": "prefer"}))


def connect_args(dsn: str) -> AsyncEngine:
    url = make_url(dsn)
    arguments = {
        "host": url.query.get("host", url.host),
        "user": url.username,
        "password": url.password,
        "port": url.port,
        "database": url.database,
        "server_settings": {"application_name": "of the engine"},
    }
    return create_async_engine("postgresql+asyncpg://nowhere.invalid", connect_args=arguments)


def creator(dsn: str) -> AsyncEngine:
    return create_async_engine(
        "postgresql+asyncpg://nowhere.invalid",
        async_creator=lambda: connect_with_asyncpg(dsn),
    )


def psycopg_creator(dsn: str) -> AsyncEngine:
    return create_async_engine(
        "postgresql+psycopg://nowhere.invalid",
        async_creator=lambda: psycopg.AsyncConnection.connect(dsn),
    )


@pytest.mark.parametrize("make", [ssl_in_the_url, connect_args, creator, psycopg_creator])
async def test_the_notifier_connects_as_the_engine_does(
    make: Callable[[str], AsyncEngine], postgres_dsn: str, prefix: str, sessions: Sessions
) -> None:
    engine = make(postgres_dsn)
    async with Oban(engine, prefix=prefix, queues={"default": 5}, **NEVER) as oban:
        await listening(oban)
        with hear(oban, "ack_stop") as acks:
            await enqueue(sessions)
            await acks.counted(1)
    await engine.dispose()


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_a_closed_connection_is_opened_again(
    quick: None,
    driver: str,
    postgres_dsn: str,
    prefix: str,
    sessions: Sessions,
    expect_errors: None,
) -> None:
    engine = async_engine(postgres_dsn, prefix, driver)
    async with Oban(engine, queues={"default": 5}, **NEVER) as oban:
        await listening(oban)
        with hear(oban, "notifier_restored") as restored, hear(oban, "ack_stop") as acks:
            with psycopg.connect(postgres_dsn, autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE %s",
                    [f'LISTEN "{of(oban)._proof}"%'],
                )
            await restored.wait()
            await enqueue(sessions)
            await acks.counted(1)
    await engine.dispose()


@pytest.mark.parametrize("driver", ["postgresql", "postgresql+psycopg", "postgresql+asyncpg", ""])
async def test_a_listen_dsn_has_any_form(
    driver: str,
    proxy: Proxy,
    start: StartOban,
    postgres_dsn: str,
    prefix: str,
    sessions: Sessions,
) -> None:
    proxy.deaf = True
    url = make_url(postgres_dsn)
    text = url.set(drivername=driver or "postgresql").render_as_string(hide_password=False)
    dsn = text if driver else make_conninfo(text)
    oban = await start(proxy.dsn, prefix=prefix, queues={"default": 5}, listen_dsn=dsn, **NEVER)
    await listening(oban)
    with hear(oban, "ack_stop") as acks:
        await enqueue(sessions)
        await acks.counted(1)


async def test_a_driver_that_can_not_listen_is_named_once(
    quick: None,
    start: StartOban,
    prefix: str,
    sessions: Sessions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A connection of a driver other than psycopg and asyncpg.
    monkeypatch.setattr(listening_module, "psycopg", SimpleNamespace(AsyncConnection=Fraction))
    with hear(Oban, "notifier_lost") as lost:
        oban = await start(queues={"default": 5}, poll_interval=0.05)
        with hear(oban, "ack_stop") as acks:
            await lost.wait()
            await enqueue(sessions)
            await acks.counted(1)
        await until(lambda: of(oban)._failures >= 3)
    assert [event.reason.partition(":")[0] for event in lost.events] == [
        "LISTEN works with psycopg and asyncpg, not with psycopg"
    ]
    assert "listen_dsn" in lost.events[0].reason


async def test_the_notifier_leaves_the_pool_of_the_engine_full(engine: AsyncEngine) -> None:
    """A pool fills its empty slots in turn, so an idle node would have one connection more."""
    listening = listening_module.Listening(engine, None)
    async with engine.connect():
        await listening.open(["one"], lambda channel, payload: None)
    pids = set()
    for _ in range(3):
        async with engine.connect() as connection:
            pids.add(await connection.scalar(select(func.pg_backend_pid())))
    await listening.close()
    assert len(pids) == 1


async def test_a_notification_between_two_listens_is_heard(
    engine: AsyncEngine, postgres_dsn: str, prefix: str
) -> None:
    def channels() -> Iterator[str]:
        yield f"{prefix}.first"
        notify(postgres_dsn, prefix, "first", "news")
        yield f"{prefix}.second"

    heard: list[str] = []
    listening = listening_module.Listening(engine, None)
    await listening.open(channels(), lambda _, payload: heard.append(payload))
    reading = asyncio.create_task(listening.read())
    await until(lambda: heard == ["news"])
    reading.cancel()
    await asyncio.wait([reading])
    await listening.close()


async def test_an_error_about_a_notification_ends_the_reading_and_frees_the_socket(
    engine: AsyncEngine, postgres_dsn: str, prefix: str
) -> None:
    def refuse(channel: str, payload: str) -> None:
        raise LookupError(payload)

    listening = listening_module.Listening(engine, None)
    await listening.open([f"{prefix}.first"], refuse)
    driver = listening._driver
    assert isinstance(driver, psycopg.AsyncConnection)
    notify(postgres_dsn, prefix, "first", "news")
    with pytest.raises(LookupError, match="news"):
        await listening.read()
    assert not asyncio.get_running_loop().remove_reader(driver.fileno())
    await listening.close()


async def test_the_notifier_has_a_connection_of_its_own(
    proxy: Proxy, start: StartOban, postgres_dsn: str, prefix: str, sessions: Sessions
) -> None:
    proxy.deaf = True
    oban = await start(
        proxy.dsn, prefix=prefix, queues={"default": 5}, listen_dsn=postgres_dsn, **NEVER
    )
    await listening(oban)
    with hear(oban, "ack_stop") as acks:
        await enqueue(sessions)
        await acks.counted(1)


async def test_without_notifications_the_queues_poll(
    proxy: Proxy, start: StartOban, prefix: str, sessions: Sessions
) -> None:
    oban = await start(
        proxy.dsn,
        prefix=prefix,
        queues={"default": 5},
        notify="poll",
        poll_interval=0.05,
        fallback_interval=3600.0,
    )
    with hear(oban, "ack_stop") as acks:
        await enqueue(sessions)
        await acks.counted(1)
    assert not of(oban).listening


async def test_behind_a_transaction_pooler_one_report_is_made_and_queues_poll(
    quick: None, quick_proof: None, proxy: Proxy, start: StartOban, prefix: str,
    sessions: Sessions, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """The pooler accepts LISTEN, but nothing is ever heard, while SELECT 1 works."""
    proxy.deaf = True
    options = {"poll_interval": 0.05, "fallback_interval": 3600.0}
    with hear(Oban, "notifier_lost") as lost, caplog.at_level(logging.WARNING):
        oban = await start(proxy.dsn, prefix=prefix, queues={"default": 5}, **options)
        with hear(oban, "ack_stop") as acks:
            await lost.wait()
            await enqueue(sessions)
            await acks.counted(1)
        await until(lambda: of(oban)._failures >= 3)
    assert len(lost.events) == 1
    assert "listen_dsn" in lost.events[0].reason
    assert caplog.text.count("notifications are lost") == 1


async def test_restored_notifications_are_reported_and_missed_jobs_run(
    quick: None, quick_proof: None, proxy: Proxy, start: StartOban, prefix: str, sessions: Sessions
) -> None:
    with hear(Oban, "notifier_lost") as lost, hear(Oban, "notifier_restored") as restored:
        oban = await start(proxy.dsn, prefix=prefix, queues={"default": 5}, **NEVER)
        await listening(oban)
        proxy.deaf = True
        await lost.wait()
        with hear(oban, "ack_stop") as acks:
            await enqueue(sessions)  # the node neither hears of the job nor polls
            proxy.deaf = False
            await restored.wait()
            await acks.counted(1)
            await enqueue(sessions)
            await acks.counted(2)
    assert (len(lost.events), len(restored.events)) == (1, 1)


async def test_a_connection_that_the_server_ended_is_opened_again(
    quick: None,
    start: StartOban,
    engine: object,
    postgres_dsn: str,
    prefix: str,
    sessions: Sessions,
) -> None:
    oban = await start(queues={"default": 5}, **NEVER)
    await listening(oban)
    with (
        hear(oban, "notifier_lost") as lost,
        hear(oban, "notifier_restored") as restored,
        hear(oban, "ack_stop") as acks,
    ):
        with psycopg.connect(postgres_dsn, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE %s",
                [f'LISTEN "{of(oban)._proof}"'],
            )
        await lost.wait()
        await restored.wait()
        with psycopg.connect(postgres_dsn) as elsewhere:
            await Quick.enqueue({}, conn=elsewhere)
            elsewhere.commit()
            await acks.counted(1)
    assert len(lost.events) == 1


async def test_after_a_reconnect_all_channels_are_heard(
    engine: AsyncEngine, postgres_dsn: str, prefix: str
) -> None:
    database = Database(engine, prefix)
    await database.verify()
    heard: list[Any] = []
    service = Notifier(
        database,
        lambda name, data: None,
        channels={channel: heard.append for channel in ("one", "two")},
        on_change=lambda: None,
        listen_dsn=None,
    )
    await service.run_once()
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE %s",
            [f'LISTEN "{service._proof}"'],
        )
    await until(lambda: not service.listening)
    with pytest.raises(psycopg.OperationalError):
        await service.run_once()
    await service.run_once()
    for channel in ("one", "two"):
        notify(postgres_dsn, prefix, channel, json.dumps({"channel": channel}))
    await until(lambda: len(heard) == 2)
    assert heard == [{"channel": "one"}, {"channel": "two"}]
    await service.close()


async def test_a_connection_that_can_not_listen_is_closed(
    quick: None, proxy: Proxy, start: StartOban, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server in recovery refuses LISTEN each time."""
    # A channel needs a name, so this statement fails.
    monkeypatch.setattr(Notifier, "_full_name", lambda self, channel: "")
    oban = await start(proxy.dsn, prefix=prefix, queues={"default": 5}, **NEVER)
    await until(lambda: of(oban)._failures >= 5)
    assert proxy.connections >= 5
    await until(lambda: proxy.open <= 4)


async def test_invalid_news_is_ignored(start: StartOban, postgres_dsn: str, prefix: str) -> None:
    oban = await start(queues={"default": 5}, **NEVER)
    await listening(oban)
    deep = '{"a":' * 1500
    for channel in ("oban_insert", "oban_schedule"):
        for payload in ("", "nonsense", "{", "[]", "{}", '{"queue": 1}', '{"queue": ["x"]}', deep):
            notify(postgres_dsn, prefix, channel, payload)
        for at in ("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "now", None, 7):
            notify(postgres_dsn, prefix, channel, json.dumps({"at": at}))
    with hear(oban, "ack_stop") as acks, psycopg.connect(postgres_dsn) as connection:
        await Quick.enqueue({}, conn=connection)
        connection.commit()
        await acks.counted(1)
    assert of(oban).listening
    assert not of(oban).failing


async def test_news_in_the_form_of_oban_is_understood(
    start: StartOban, postgres_dsn: str, prefix: str
) -> None:
    """Oban may send its JSON gzipped, in base64."""
    oban = await start(queues={"default": 5}, **NEVER)
    await listening(oban)
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(
            sql.SQL("INSERT INTO {} (worker) VALUES (%s)").format(
                sql.Identifier(prefix, "oban_jobs")
            ),
            [Quick.__oban__.name],  # type: ignore[attr-defined]
        )
    with hear(oban, "ack_stop") as acks:
        packed = base64.b64encode(gzip.compress(json.dumps({"queue": "default"}).encode()))
        notify(postgres_dsn, prefix, "oban_insert", packed.decode())
        await acks.counted(1)


def test_cut_and_broken_payloads_are_ignored() -> None:
    packed = base64.b64encode(gzip.compress(b'{"queue": "default"}')).decode()
    assert decode(packed) == decode(f"Z:{packed}") == {"queue": "default"}
    whole = bytearray(base64.b64decode(packed))
    whole[12] ^= 0xFF
    for broken in (packed[:20], packed[:-8], base64.b64encode(whole).decode(), "\x00", "é"):
        assert decode(broken) is None
