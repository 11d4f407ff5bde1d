"""An instance from start to stop."""

import asyncio
import gc
import logging
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, make_url, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from oban_sqla import Job, JobState, Oban, Record, Worker, job
from oban_sqla.config import oban_settings
from oban_sqla.errors import SchemaMissingError
from tests.conftest import StartOban, Tune
from tests.databases import User
from tests.listening import PATIENCE, hear
from tests.proxy import Proxy
from tests.runtime.conftest import Rows, until
from tests.runtime.workers import Held, Quick
from tests.services import services

Sessions = async_sessionmaker[AsyncSession]

S = JobState


class Greet(Worker, queue="greetings"):
    async def process(self, job: Job) -> Record:
        return Record(f"hello {job.args['name']}")


@job(queue="greetings")
def shout(name: str) -> Record:
    return Record(name.upper())


async def test_jobs_of_a_committed_session_run(start: StartOban, sessions: Sessions) -> None:
    oban = await start(queues={"greetings": 5})
    with hear(oban, "ack_stop") as acks:
        async with sessions.begin() as session:
            session.add(User(name="ann"))
            greeting = await Greet.enqueue({"name": "ann"}, conn=session)
            session.add(shout.new("bob"))
            await shout.enqueue("carl", conn=session, schedule_in=timedelta(milliseconds=50))
        await acks.counted(3)
    async with sessions() as session:
        jobs = (await session.scalars(select(Job).order_by(Job.id))).all()
    assert [job.state for job in jobs] == [JobState.COMPLETED] * 3
    assert [job.recorded for job in jobs] == ["hello ann", "BOB", "CARL"]
    assert jobs[0].id == greeting.id


@pytest.fixture(params=["engine", "sessionmaker", "url", "string"])
def given(request: pytest.FixtureRequest, engine: AsyncEngine, postgres_dsn: str) -> Any:
    """Each kind of object from which an instance is made."""
    return {
        "engine": engine,
        "sessionmaker": async_sessionmaker(engine),
        "url": make_url(postgres_dsn),
        "string": postgres_dsn,
    }[request.param]


async def test_each_kind_of_engine_runs_jobs(given: Any, prefix: str) -> None:
    async with Oban(given, queues={"default": 5}, prefix=prefix) as oban:
        with hear(oban, "ack_stop") as acks:
            await oban.enqueue(Quick.new())
            await acks.counted(1)


async def test_an_instance_restarts_after_a_stop(given: Any, prefix: str) -> None:
    oban = Oban(given, queues={"default": 5}, prefix=prefix)
    for _ in range(2):
        async with oban:
            with hear(oban, "ack_stop") as acks:
                await oban.enqueue(Quick.new())
                await acks.counted(1)


async def test_a_sync_engine_is_refused(postgres_dsn: str) -> None:
    engine: Engine = create_engine(make_url(postgres_dsn).set(drivername="postgresql+psycopg"))
    with pytest.raises(TypeError, match=r"a sync engine can't run jobs.*create_async_engine"):
        Oban(engine)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="bound to an AsyncEngine, not to None"):
        Oban(async_sessionmaker())
    with pytest.raises(TypeError, match="not int"):
        Oban(7)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must start with postgresql://"):
        Oban("sqlite://")
    with pytest.raises(ValueError, match="of the form postgresql://"):
        Oban("not a url")


async def test_missing_tables_are_named_at_the_start(postgres_dsn: str) -> None:
    """The error names the remedy, and the engine made for the URL is closed."""
    oban = Oban(postgres_dsn, queues={"default": 5}, prefix="no_such_schema")
    with pytest.raises(SchemaMissingError, match="oban-sqla schema upgrade") as raised:
        await oban.start()
    assert "oban_jobs, oban_leaders, oban_producers, " in str(raised.value)
    assert "--prefix no_such_schema" in str(raised.value)
    assert oban._database.engine.pool.checkedin() == 0  # type: ignore[attr-defined]
    gc.collect()


async def test_a_stop_disposes_of_an_engine_of_its_own(postgres_dsn: str, prefix: str) -> None:
    oban = Oban(postgres_dsn, queues={"default": 5}, prefix=prefix)
    async with oban:
        pass
    assert oban._database.engine.pool.checkedin() == 0  # type: ignore[attr-defined]


async def test_a_stop_keeps_the_engine_of_the_caller(engine: AsyncEngine) -> None:
    async with Oban(engine, queues={"default": 5}):
        pass
    assert engine.pool.checkedin() > 0  # type: ignore[attr-defined]


async def test_an_instance_without_queues_only_enqueues(engine: AsyncEngine, rows: Rows) -> None:
    async with Oban(engine) as oban:
        await oban.enqueue(Quick.new())
    assert await rows() == [(S.AVAILABLE, 0)]


async def test_one_process_runs_several_instances(
    start: StartOban, sessions: Sessions, rows: Rows
) -> None:
    one = await start(queues={"default": 5}, name="one")
    two = await start(queues={"greetings": 5, "default": 5}, name="two")
    with hear(one, "ack_stop") as acks_of_one, hear(two, "ack_stop") as acks_of_two:
        async with sessions.begin() as session:
            session.add_all(Quick.new() for _ in range(20))
            session.add(Greet.new({"name": "x"}))
        await until(lambda: sum(e.count for e in [*acks_of_one.events, *acks_of_two.events]) == 21)
    assert len(Quick.ran) == 20
    assert len(set(Quick.ran)) == 20
    assert await rows() == [(S.COMPLETED, 1)] * 21


async def test_stopping_twice_and_before_the_start_does_nothing(engine: AsyncEngine) -> None:
    oban = Oban(engine, queues={"default": 1})
    await oban.stop()
    async with oban:
        pass
    await asyncio.gather(oban.stop(), oban.stop())


async def test_starting_twice_at_once_starts_once(engine: AsyncEngine) -> None:
    oban = Oban(engine, queues={"default": 1})
    before = len(asyncio.all_tasks())
    await asyncio.gather(oban.start(), oban.start(), oban.start())
    once = len(asyncio.all_tasks())
    await oban.start()
    assert len(asyncio.all_tasks()) == once
    await oban.stop()
    assert len(asyncio.all_tasks()) == before


async def test_a_second_stop_waits_for_the_first(engine: AsyncEngine, rows: Rows) -> None:
    oban = Oban(engine, queues={"default": 1}, shutdown_grace_period=20.0)
    await oban.start()
    await oban.enqueue(Held.new())
    await Held.begun()
    stops = [asyncio.create_task(oban.stop()) for _ in range(2)]
    done, _ = await asyncio.wait(stops, timeout=0.05)
    assert not done
    Held.release()
    await asyncio.gather(*stops)
    assert await rows() == [(S.COMPLETED, 1)]


async def test_a_cancelled_stop_can_be_repeated(engine: AsyncEngine, rows: Rows) -> None:
    oban = Oban(engine, queues={"default": 1}, shutdown_grace_period=20.0)
    before = asyncio.all_tasks()
    await oban.start()
    await oban.enqueue(Held.new())
    await Held.begun()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await oban.stop()
    Held.release()
    await oban.stop()
    assert asyncio.all_tasks() == before
    assert await rows() == [(S.COMPLETED, 1)]


async def test_an_instance_restarts_after_a_cancelled_stop(engine: AsyncEngine, rows: Rows) -> None:
    oban = Oban(engine, queues={"default": 1}, shutdown_grace_period=20.0)
    await oban.start()
    await oban.enqueue(Held.new())
    await Held.begun()
    (producer,) = services(oban).producers.values()
    stop = asyncio.create_task(oban.stop())
    await until(lambda: producer._draining)
    stop.cancel()
    await asyncio.wait([stop])
    Held.release()
    async with oban:
        await oban.wait(await oban.enqueue(Quick.new()), timeout=PATIENCE)
    assert await rows() == [(S.COMPLETED, 1)] * 2


@pytest.mark.parametrize("service", ["notifier", "heartbeat", "stager", "producer"])
async def test_a_failed_start_leaves_nothing_running(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
    async def fail(self: Any) -> None:
        raise ConnectionError("in the middle")

    target = f"oban_sqla.runtime.{service}.{service.capitalize()}.start"
    monkeypatch.setattr(target, fail)
    before = asyncio.all_tasks()
    oban = Oban(engine, queues={"default": 1})
    with pytest.raises(ConnectionError, match="in the middle"):
        await oban.start()
    assert asyncio.all_tasks() == before
    monkeypatch.undo()
    async with oban:
        pass


async def test_a_cancelled_start_leaves_nothing_running(proxy: Proxy, prefix: str) -> None:
    proxy.silent = True
    oban = Oban(proxy.dsn, queues={"default": 1}, prefix=prefix)
    start = asyncio.create_task(oban.start())
    await until(lambda: proxy.open == 1)
    start.cancel()
    await asyncio.wait([start])
    assert start.cancelled()
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("oban-")]


async def test_a_start_cancelled_twice_can_be_stopped(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending = asyncio.Event()

    async def fail(self: Any) -> None:
        raise ConnectionError

    async def never_end(self: Any) -> None:
        ending.set()
        await asyncio.Event().wait()

    before = asyncio.all_tasks()
    oban = Oban(engine, queues={"default": 1})
    with monkeypatch.context() as patch:
        patch.setattr("oban_sqla.runtime.leader.Leader.start", fail)
        patch.setattr("oban_sqla.runtime.heartbeat.Heartbeat.stop", never_end)
        start = asyncio.create_task(oban.start())
        await ending.wait()
        start.cancel()
        await asyncio.wait([start])
        assert start.cancelled()
    await oban.stop()
    assert asyncio.all_tasks() == before


async def test_an_instance_survives_an_outage_of_the_database(
    quick: None,
    tune: Tune,
    proxy: Proxy,
    start: StartOban,
    prefix: str,
    sessions: Sessions,
    expect_errors: None,
) -> None:
    """Each loop reports once that it fails, and once that it works again."""
    tune(oban_settings, SHORTEST_EXPIRY=0.0)
    options = {"poll_interval": 0.1, "fallback_interval": 0.1, "heartbeat_expiry": 1.0}
    with hear(Oban, "service_failed") as failed, hear(Oban, "service_restored") as restored:
        oban = await start(proxy.dsn, prefix=prefix, queues={"default": 5}, **options)
        await proxy.refuse()
        proxy.cut()
        names = {"heartbeat", "leader", "producer default", "stager"}
        await failed.until(lambda events: {e.service for e in events} >= names)
        await until(lambda: services(oban).stager._failures > 3)
        said = [e.service for e in failed.events]
        assert len(said) == len(set(said))
        async with sessions.begin() as session:
            session.add(Quick.new())
        with hear(oban, "ack_stop") as acks:
            await proxy.allow()
            await acks.counted(1)
        await restored.until(lambda events: {e.service for e in events} >= set(said))


async def test_an_outage_and_its_end_are_one_log_line_each(
    quick: None,
    proxy: Proxy,
    start: StartOban,
    prefix: str,
    caplog: pytest.LogCaptureFixture,
    expect_errors: None,
) -> None:
    caplog.set_level(logging.INFO, logger="oban_sqla")
    options: dict[str, Any] = {"poll_interval": 0.1, "fallback_interval": 0.1}
    options["leadership"] = False
    queues = {"a": 1, "b": 1, "c": 1}
    oban = await start(proxy.dsn, prefix=prefix, queues=queues, node="n1", **options)
    await until(lambda: services(oban).notifier.listening)
    caplog.clear()
    producers = {f"producer {queue}" for queue in queues}
    with (
        hear(Oban, "service_failed") as failed,
        hear(Oban, "service_restored") as restored,
        hear(Oban, "notifier_restored") as notified,
    ):
        await proxy.refuse()
        proxy.cut()
        await failed.until(lambda events: {event.service for event in events} >= producers)
        await proxy.allow()
        await notified.wait()
        await restored.until(
            lambda events: (
                {event.service for event in events} >= {event.service for event in failed.events}
            )
        )
    begun, over = [record.message for record in caplog.records if record.name == "oban_sqla"]
    failing = "Oban: node n1 can't use the database, trying again until it succeeds: "
    assert begun.startswith(failing)
    assert "SQL" not in begun
    assert over.startswith("Oban: node n1 uses the database again, after ")
