"""The heartbeat: the rows that show other nodes that a producer is alive."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import delete, event, func, select
from sqlalchemy.exc import DataError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from oban_sqla import Oban
from oban_sqla.config import oban_settings
from oban_sqla.models import ProducerRow
from oban_sqla.runtime import loop_thread
from oban_sqla.runtime.heartbeat import Heartbeat
from tests.conftest import StartOban, Tune
from tests.databases import async_engine
from tests.listening import PATIENCE, hear
from tests.proxy import Proxy
from tests.runtime.conftest import locked, until
from tests.runtime.workers import Held
from tests.services import services

Sessions = async_sessionmaker[AsyncSession]

QUICKLY = {"heartbeat_expiry": 0.4}
"""A heartbeat every tenth of a second."""


@pytest.fixture(autouse=True)
def short(tune: Tune) -> None:
    tune(oban_settings, SHORTEST_EXPIRY=0.0)


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    yield
    assert threads() == []


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "oban-heartbeat"]


def heartbeat(oban: Oban) -> Heartbeat:
    return services(oban).heartbeat


async def producers(sessions: Sessions) -> list[ProducerRow]:
    async with sessions() as session:
        return list(await session.scalars(select(ProducerRow).order_by(ProducerRow.queue)))


def beaten(sessions: Sessions, since: datetime) -> Callable[[], Any]:
    async def beaten() -> bool:
        return any(producer.updated_at > since for producer in await producers(sessions))

    return beaten


class TestRows:
    async def test_each_queue_has_a_row_while_it_runs(self, sessions: Sessions) -> None:
        queues: dict[str, Any] = {"alpha": 2, "beta": {"limit": 3, "paused": True}}
        async with Oban(sessions, queues=queues, name="main", node="n1") as oban:
            alpha, beta = await producers(sessions)
            assert [alpha.uuid, beta.uuid] == [p.uuid for p in services(oban).producers.values()]
        assert (alpha.name, alpha.node, alpha.queue) == ("main", "n1", "alpha")
        told = ("local_limit", "paused", "expiry")
        assert [alpha.meta[key] for key in told] == [2, False, 60.0]
        assert [beta.meta[key] for key in told] == [3, True, 60.0]
        assert await producers(sessions) == []

    async def test_rows_are_written_before_the_first_claim(
        self, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = []

        async def start(self: Any) -> None:
            found.append([p.uuid for p in await producers(sessions)] == [self.uuid])

        monkeypatch.setattr("oban_sqla.runtime.producer.Producer.start", start)
        async with Oban(sessions, queues={"alpha": 1}):
            assert found == [True]

    async def test_each_beat_writes_changes(self, start: StartOban, sessions: Sessions) -> None:
        oban = await start(queues={"alpha": 1}, **QUICKLY)
        (first,) = await producers(sessions)
        services(oban).queues.pause_queue("alpha")
        services(oban).queues.scale_queue("alpha", 7)

        async def told() -> bool:
            (now,) = await producers(sessions)
            assert now.started_at == first.started_at
            # Without the beginning of its beats, since a busy machine may have missed some.
            expected = {**first.meta, "local_limit": 7, "paused": True}
            return now.meta | {"unbroken_since": first.meta["unbroken_since"]} == expected

        await until(told)
        await until(beaten(sessions, first.updated_at))

    async def test_a_restart_is_a_new_producer(self, sessions: Sessions) -> None:
        oban = Oban(sessions, queues={"alpha": 1})
        uuids = set()
        for _ in range(2):
            async with oban:
                uuids |= {producer.uuid for producer in await producers(sessions)}
        assert len(uuids) == 2

    async def test_a_queue_has_a_row_from_its_start_to_its_stop(
        self, start: StartOban, sessions: Sessions
    ) -> None:
        oban = await start(queues={"alpha": 1}, **QUICKLY)
        await services(oban).queues.start_queue("beta", 2)
        alpha, beta = await producers(sessions)
        assert heartbeat(oban).started_at(beta.uuid) == beta.started_at
        assert heartbeat(oban).started_at(alpha.uuid) == alpha.started_at
        await services(oban).queues.stop_queue("beta")
        (left,) = await producers(sessions)
        assert heartbeat(oban).started_at(beta.uuid) is None
        await until(beaten(sessions, left.updated_at))
        assert [producer.queue for producer in await producers(sessions)] == ["alpha"]

    async def test_a_queue_that_is_being_stopped_is_alive(
        self, start: StartOban, sessions: Sessions
    ) -> None:
        """Its jobs still run, and another queue that starts meanwhile changes nothing."""
        oban = await start(queues={"alpha": 1}, **QUICKLY)
        alpha = services(oban).producers.pop("alpha")
        await services(oban).queues.start_queue("beta", 2)
        rows = {producer.queue: producer for producer in await producers(sessions)}
        assert rows["alpha"].updated_at == rows["beta"].updated_at
        services(oban).producers["alpha"] = alpha

    async def test_a_stopping_node_beats_while_its_jobs_run(
        self, start: StartOban, sessions: Sessions
    ) -> None:
        """Otherwise its jobs would be rescued and run twice."""
        oban = await start(queues={"default": 1}, shutdown_grace_period=60, **QUICKLY)
        async with sessions.begin() as session:
            session.add(Held.new())
        await Held.begun()
        stop = asyncio.create_task(oban.stop())
        for _ in range(2):
            (row,) = await producers(sessions)
            await until(beaten(sessions, row.updated_at))
        Held.release()
        await stop
        assert await producers(sessions) == []

    async def test_a_queue_that_can_not_be_started_fails_no_beat(
        self, start: StartOban, sessions: Sessions
    ) -> None:
        oban = await start(queues={"alpha": 1}, notify="poll")
        with pytest.raises(DataError):
            await services(oban).queues.start_queue("no\0text", 2)
        await services(oban).queues.report()
        assert [producer.queue for producer in await producers(sessions)] == ["alpha"]

    async def test_a_queue_whose_start_was_cancelled_has_no_row(
        self, start: StartOban, engine: AsyncEngine, prefix: str, sessions: Sessions
    ) -> None:
        oban = await start(queues={"alpha": 1}, notify="poll")
        async with locked(engine, prefix, "oban_producers") as kept_off:
            starting = asyncio.create_task(services(oban).queues.start_queue("beta", 2))
            await kept_off()
            starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        await services(oban).queues.report()
        assert [producer.queue for producer in await producers(sessions)] == ["alpha"]


class TestTrouble:
    async def test_a_beat_that_failed_is_tried_again_within_an_interval(
        self, start: StartOban
    ) -> None:
        oban = await start(queues={"default": 1}, heartbeat_expiry=2.0)
        pulse = heartbeat(oban)._pulse
        assert pulse is not None
        assert pulse.longest_retry == 0.5

    async def test_lost_rows_are_written_again_unchanged(
        self, start: StartOban, sessions: Sessions
    ) -> None:
        """The table is unlogged, so a crash of the server empties it."""
        oban = await start(queues={"alpha": 1}, **QUICKLY)
        (first,) = await producers(sessions)
        async with sessions.begin() as session:
            await session.execute(delete(ProducerRow))

        async def restored() -> bool:
            return [p.uuid for p in await producers(sessions)] == [first.uuid]

        await until(restored)
        (again,) = await producers(sessions)
        assert again.started_at == first.started_at
        assert heartbeat(oban).started_at(first.uuid) == first.started_at

    async def test_an_outage_is_reported_once_and_ends(
        self,
        proxy: Proxy,
        start: StartOban,
        prefix: str,
        sessions: Sessions,
        expect_errors: None,
    ) -> None:
        with hear(Oban, "service_failed") as failed, hear(Oban, "service_restored") as restored:
            options = {"leadership": False, "notify": "poll", "poll_interval": 3600.0}
            oban = await start(proxy.dsn, prefix=prefix, queues={"alpha": 1}, **options, **QUICKLY)
            await proxy.refuse()
            proxy.cut()
            await failed.until(lambda events: "heartbeat" in {e.service for e in events})
            pulse = heartbeat(oban)._pulse
            assert pulse is not None
            await until(lambda: pulse._failures >= 3)
            (before,) = await producers(sessions)
            await proxy.allow()
            began = time.monotonic()
            await restored.until(lambda events: "heartbeat" in {e.service for e in events})
            # At once, since the other services may wait for half a minute.
            assert time.monotonic() - began < 5.0
        assert [e.service for e in failed.events].count("heartbeat") == 1
        await until(beaten(sessions, before.updated_at))

    async def test_a_first_beat_that_fails_fails_the_start(
        self, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(producers: Any, **options: Any) -> Any:
            raise ConnectionError("no beat")

        monkeypatch.setattr("oban_sqla.runtime.heartbeat.beat", fail)
        with pytest.raises(ConnectionError, match="no beat"):
            await Oban(engine, queues={"alpha": 1}).start()


class TestThread:
    async def test_a_blocked_event_loop_does_not_stop_the_heartbeat(
        self, start: StartOban, sessions: Sessions
    ) -> None:
        await start(queues={"alpha": 1}, **QUICKLY)
        time.sleep(1.0)  # noqa: ASYNC251 - as bad user code does
        async with sessions() as session:
            silent_for = await session.scalar(
                select(func.timezone("UTC", func.clock_timestamp()) - ProducerRow.updated_at)
            )
        assert silent_for is not None
        assert silent_for.total_seconds() < 0.4

    async def test_the_thread_connects_as_the_engine_does(
        self, postgres_dsn: str, prefix: str, start: StartOban
    ) -> None:
        threads = []
        engine = async_engine(postgres_dsn, prefix, pool_size=1, max_overflow=0)

        @event.listens_for(engine.sync_engine, "do_connect")
        def remember(*connecting: Any) -> None:
            threads.append(threading.current_thread().name)

        async with Oban(engine, queues={"alpha": 1}, notify="poll"):
            pass
        await engine.dispose()
        assert threads.count("oban-heartbeat") == 1

    @pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
    async def test_each_driver_can_beat(
        self, postgres_dsn: str, prefix: str, sessions: Sessions, driver: str
    ) -> None:
        engine = async_engine(postgres_dsn, prefix, driver)
        async with Oban(engine, queues={"alpha": 1}, **QUICKLY):  # type: ignore[arg-type]
            (first,) = await producers(sessions)
            await until(beaten(sessions, first.updated_at))
        assert await producers(sessions) == []
        await engine.dispose()

    async def test_many_heartbeats_start_and_stop(
        self, engine: AsyncEngine, sessions: Sessions
    ) -> None:
        """Many heartbeats, each with its thread, start and stop, and leave nothing behind."""
        async with AsyncExitStack() as stack:
            for number in range(5):
                oban = Oban(engine, queues={f"q{number}": 1}, name=f"{number}", notify="poll")
                own = heartbeat(await stack.enter_async_context(oban))
                stack.push_async_callback(asyncio.gather, *(own.run_once() for _ in range(20)))
            assert len(threads()) == 5
        assert threads() == []
        assert await producers(sessions) == []

    async def test_a_report_during_a_stop_does_not_restart_the_heartbeat(
        self, start: StartOban, sessions: Sessions
    ) -> None:
        oban = await start(queues={"alpha": 1})
        own = heartbeat(oban)
        await asyncio.gather(own.stop(), own.run_once())
        await own.run_once()
        assert threads() == []
        assert await producers(sessions) == []

    async def test_a_cancelled_stop_can_be_repeated(self, start: StartOban) -> None:
        own = heartbeat(await start(queues={"alpha": 1}))
        thread = own._thread
        assert thread is not None
        closing, released, close = threading.Event(), threading.Event(), thread._close

        async def close_late() -> None:
            closing.set()
            released.wait(PATIENCE)
            await close()

        thread._close = close_late
        stop = asyncio.create_task(own.stop())
        await until(closing.is_set)
        stop.cancel()
        await asyncio.wait([stop])
        released.set()
        # The thread ends, and the event loop is too busy to notice.
        thread._thread.join(PATIENCE)
        await own.stop()

    async def test_the_end_of_a_queue_waits_for_a_stop_in_progress(
        self,
        start: StartOban,
        engine: AsyncEngine,
        prefix: str,
        expect_errors: None,
        tune: Tune,
    ) -> None:
        """The deletion of the row is not cancelled with the tasks of the thread, nor sent to a
        thread that has ended.
        """
        oban = await start(queues={"alpha": 1}, notify="poll")
        (alpha,) = services(oban).producers.values()
        tune("oban_sqla.runtime.heartbeat", STOP_TIMEOUT=0.3)
        tune(loop_thread, ENDING=0.1)
        own = heartbeat(oban)
        async with locked(engine, prefix, "oban_producers") as kept_off:
            stop = asyncio.create_task(own.stop())
            await kept_off()
            await own.forget(alpha)
            await stop

    async def test_a_stop_does_not_wait_for_a_silent_server(
        self,
        quick: None,
        proxy: Proxy,
        prefix: str,
        expect_errors: None,
        tune: Tune,
    ) -> None:
        for module in ("producer", "leader", "heartbeat"):
            tune(f"oban_sqla.runtime.{module}", STOP_TIMEOUT=0.5)
        tune("oban_sqla.runtime.time_limits", CLOSING=0.1)
        options = {"leadership": False, "notify": "poll"}
        oban = Oban(proxy.dsn, prefix=prefix, queues={"alpha": 1}, **options)  # type: ignore[arg-type]
        await oban.start()
        own = heartbeat(oban)
        proxy.silent = True
        began = time.monotonic()
        await own.stop()
        assert time.monotonic() - began < 2.0
        proxy.silent = False
        await oban.stop()

    async def test_a_hanging_thread_is_left_behind(
        self, start: StartOban, monkeypatch: pytest.MonkeyPatch, tune: Tune
    ) -> None:
        tune("oban_sqla.runtime.heartbeat", STOP_TIMEOUT=0.05)
        tune(loop_thread, ENDING=0.05)
        oban = await start(queues={"alpha": 1})
        own = heartbeat(oban)
        released = threading.Event()
        assert own._thread is not None
        own._thread._loop.call_soon_threadsafe(released.wait)
        with hear(oban, "service_cancelled") as cancelled:
            await own.stop()
        assert [e.service for e in cancelled.events] == ["heartbeat"]
        monkeypatch.undo()
        released.set()
        await until(lambda: threads() == [])

    def test_the_heartbeat_ends_with_the_event_loop(self, postgres_dsn: str, prefix: str) -> None:
        """No process runs the jobs any more, so the node must not look alive."""

        async def start() -> None:
            oban = Oban(postgres_dsn, queues={"alpha": 1}, prefix=prefix, **QUICKLY)  # type: ignore[arg-type]
            database = oban._database
            await database.verify()
            own = Heartbeat(
                database,
                oban._emit,
                instance="x",
                node="n",
                producers=(),
                interval=0.05,
                expiry=0.2,
                on_foreign_nodes=lambda: None,
            )
            await own.start()
            await database.dispose()

        asyncio.run(start())
        (thread,) = threads()
        thread.join(20.0)
        assert not thread.is_alive()
