"""The lifeline: when it looks, and whose jobs it rescues, while nodes live and die."""

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import delete, event, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from oban_sqla import Job, JobState, Oban, Worker
from oban_sqla.config import oban_settings
from oban_sqla.events import RescueStop
from oban_sqla.models import ProducerRow
from oban_sqla.runtime import lifeline as lifeline_module
from oban_sqla.runtime.database import Database
from oban_sqla.runtime.heartbeat import Heartbeat
from oban_sqla.runtime.lifeline import Lifeline
from tests.conftest import StartOban, Tune
from tests.factories import JobFactory
from tests.listening import hear
from tests.proxy import Proxy
from tests.runtime.conftest import Rows, until
from tests.runtime.workers import Held
from tests.services import services

Sessions = async_sessionmaker[AsyncSession]

S = JobState
EXPIRY = 60.0
SHORT: dict[str, Any] = {"heartbeat_expiry": 0.8, "poll_interval": 0.1, "fallback_interval": 0.1}


SLOWER: dict[str, Any] = {**SHORT, "heartbeat_expiry": 2.0}


class Blocker(Worker, queue="default"):
    """A worker that blocks the event loop."""

    async def process(self, job: Job) -> None:
        time.sleep(job.args["seconds"])  # noqa: ASYNC251


@pytest.fixture
def short(tune: Tune) -> None:
    tune(oban_settings, SHORTEST_EXPIRY=0.0)


class Made(Lifeline):
    """A lifeline in circumstances that the test sets. It records its rescues."""

    def __init__(self, database: Database) -> None:
        self.leads = True
        self.passes: list[RescueStop] = []
        super().__init__(
            database,
            lambda name, data: self.passes.append(data) if name == "rescue_stop" else None,  # type: ignore[func-returns-value, arg-type]
            is_leader=lambda: self.leads,
            heartbeat_expiry=EXPIRY,
            rescue_after=3600.0,
        )


@pytest.fixture
def made(engine: AsyncEngine, prefix: str) -> Made:
    return Made(Database(engine, prefix))


async def add(sessions: Sessions, *rows: Any) -> None:
    async with sessions.begin() as session:
        session.add_all(rows)


def producer(silent_for: float, unbroken_for: float = 3600.0) -> ProducerRow:
    at = datetime.now(UTC) - timedelta(seconds=silent_for)
    since = (at - timedelta(seconds=unbroken_for)).timestamp()
    meta = {"expiry": EXPIRY, "unbroken_since": since}
    return ProducerRow(uuid=uuid4(), node="n", queue="q", meta=meta, updated_at=at)


def claimed_by(uuid: UUID, *mark: str, **fields: Any) -> Job:
    fields.setdefault("attempted_at", datetime.now(UTC))
    return JobFactory(executing=True, attempted_by=["n", str(uuid), *mark], **fields)


async def uuids(sessions: Sessions) -> list[UUID]:
    async with sessions() as session:
        return list(await session.scalars(select(ProducerRow.uuid)))


class TestPass:
    async def test_a_pass_rescues_jobs_and_waits_for_the_next_expiry(
        self, made: Made, sessions: Sessions, rows: Rows
    ) -> None:
        dead, soon, later = producer(61), producer(50), producer(1)
        await add(sessions, dead, soon, later)
        await add(sessions, *(claimed_by(p.uuid, "oban_sqla") for p in (dead, soon, later)))
        assert 9.0 < await made.run_once() < 10.0
        (stop,) = made.passes
        assert (stop.rescued, stop.discarded, stop.cancelled) == ((1,), (), ())
        assert await rows() == [(S.AVAILABLE, 1), (S.EXECUTING, 1), (S.EXECUTING, 1)]

    async def test_rows_of_expired_producers_are_deleted(
        self, made: Made, sessions: Sessions
    ) -> None:
        dead, living = producer(61), producer(1)
        await add(sessions, dead, living)
        await add(sessions, claimed_by(dead.uuid))
        await made.run_once()
        assert await uuids(sessions) == [living.uuid]

    async def test_an_invalid_number_in_a_row_stops_no_rescue(
        self, made: Made, sessions: Sessions, rows: Rows
    ) -> None:
        """Another program may write any JSON into the meta of its producer."""
        foreign = producer(1)
        foreign.meta = {"expiry": 10**400, "unbroken_since": 10**400}
        dead = producer(61)
        await add(sessions, dead, producer(1), foreign)
        await add(sessions, claimed_by(dead.uuid, "oban_sqla"))
        await made.run_once()
        assert await rows() == [(S.AVAILABLE, 1)]

    async def test_a_follower_rescues_no_job(
        self, made: Made, sessions: Sessions, rows: Rows
    ) -> None:
        made.leads = False
        await add(sessions, claimed_by(uuid4(), "oban_sqla"))
        assert await made.run_once() == math.inf
        assert await rows() == [(S.EXECUTING, 1)]
        assert made.passes == []

    async def test_before_two_beats_no_job_is_rescued(
        self, made: Made, sessions: Sessions, rows: Rows
    ) -> None:
        """After an outage all rows have expired, and the table may be empty."""
        back, dead = producer(0, unbroken_for=10), producer(61)
        await add(sessions, back, dead)
        await add(sessions, claimed_by(dead.uuid), claimed_by(uuid4(), "oban_sqla"))
        assert 19.0 < await made.run_once() <= 20.0
        assert await rows() == [(S.EXECUTING, 1)] * 2
        assert made.passes == []
        async with sessions.begin() as session:
            await session.execute(delete(ProducerRow).where(ProducerRow.uuid == back.uuid))
            session.add(producer(0, unbroken_for=30))
        await made.run_once()
        assert await rows() == [(S.AVAILABLE, 1)] * 2

    async def test_before_two_beats_no_statement_is_prepared(
        self, made: Made, sessions: Sessions, engine: AsyncEngine
    ) -> None:
        sent: list[str] = []

        def note(conn: Any, cursor: Any, statement: str, *rest: Any) -> None:
            sent.append(statement)

        new = producer(0, unbroken_for=10)
        await add(sessions, new)
        event.listen(engine.sync_engine, "before_cursor_execute", note)
        await made.run_once()
        event.remove(engine.sync_engine, "before_cursor_execute", note)
        assert [statement for statement in sent if "UPDATE" in statement] == []

    async def test_while_no_node_beats_no_job_is_rescued(
        self, made: Made, sessions: Sessions, rows: Rows
    ) -> None:
        await add(sessions, claimed_by(uuid4(), "oban_sqla"))
        assert await made.run_once() == EXPIRY / 4
        assert await rows() == [(S.EXECUTING, 1)]

    async def test_many_orphans_are_rescued_in_batches(
        self, made: Made, sessions: Sessions, rows: Rows, tune: Tune
    ) -> None:
        tune(lifeline_module, BATCH=2)
        living, dead = producer(0), producer(61)
        await add(sessions, living, dead)
        await add(sessions, *(claimed_by(dead.uuid) for _ in range(5)))
        assert [await made.run_once() > 0.0 for _ in range(3)] == [False, False, True]
        assert [len(stop.rescued) for stop in made.passes] == [2, 2, 1]
        assert await uuids(sessions) == [living.uuid]
        assert await rows() == [(S.AVAILABLE, 1)] * 5

    async def test_locked_orphans_are_looked_at_again_soon(
        self, made: Made, sessions: Sessions, rows: Rows
    ) -> None:
        living, dead = producer(0), producer(61)
        await add(sessions, living, dead)
        await add(sessions, claimed_by(dead.uuid))
        async with sessions.begin() as session:
            await session.execute(select(Job.id).with_for_update())
            assert await made.run_once() == lifeline_module.LOCKED_RETRY
        assert await made.run_once() > lifeline_module.LOCKED_RETRY
        assert await rows() == [(S.AVAILABLE, 1)]

    async def test_two_lifelines_rescue_each_job_once(
        self, made: Made, engine: AsyncEngine, prefix: str, sessions: Sessions
    ) -> None:
        """Two leaders at once do no harm."""
        living, dead = producer(0), producer(61)
        await add(sessions, living, dead)
        await add(sessions, *(claimed_by(dead.uuid) for _ in range(200)))
        other = Made(Database(engine, prefix))
        await asyncio.gather(made.run_once(), other.run_once())
        ids = [id for stop in (*made.passes, *other.passes) for id in stop.rescued]
        assert sorted(ids) == list(range(1, 201))
        async with sessions() as session:
            counts = await session.scalars(select(Job.meta["rescued"].as_integer()))
            assert set(counts) == {1}


def lifeline(oban: Oban) -> Lifeline:
    (found,) = (s for s in services(oban).cluster_services if isinstance(s, Lifeline))
    return found


def heartbeat(oban: Oban) -> Heartbeat:
    return services(oban).heartbeat


async def die(oban: Oban) -> None:
    """End a node like a SIGKILL: its jobs and rows stay."""
    supervisor = services(oban)
    thread, pulse = supervisor.heartbeat._thread, supervisor.heartbeat._pulse
    assert thread is not None
    assert pulse is not None
    # Between two beats, since an interrupted beat leaves its connection to the garbage collector.
    await thread.run(pulse._turn.acquire())
    await thread.end()
    for service in (*supervisor.producers.values(), supervisor.leader):
        if service._task is not None:
            service._task.cancel()
            await asyncio.wait([service._task])


@pytest.fixture
async def mortal(engine: AsyncEngine) -> AsyncIterator[Callable[..., Any]]:
    """Start instances that the test may let `die`. They are cleaned up at the end."""
    obans: list[Oban] = []

    async def start(**options: Any) -> Oban:
        oban = Oban(engine, shutdown_grace_period=0.0, **SHORT, **options)
        obans.append(oban)
        return await oban.start()

    yield start
    for oban in obans:
        supervisor = services(oban)
        supervisor.heartbeat._thread = supervisor.heartbeat._pulse = None
        for producer in supervisor.producers.values():
            producer._lost.possible = False
        supervisor.leader._standing = False
        await oban.stop()


class TestNodes:
    async def test_the_jobs_of_a_node_that_died_run_again_in_time(
        self, mortal: Any, start: StartOban, rows: Rows, short: None, sessions: Sessions
    ) -> None:
        """The heartbeat shows that the node is dead, an hour before `rescue_after`."""
        killed = await mortal(queues={"default": 1}, node="killed", leadership=False)
        await add(sessions, Held.new())
        await Held.begun()
        other = await start(queues={"default": 1}, node="other", **SHORT)
        await until(lambda: other.is_leader)
        with hear(other, "rescue_stop") as rescues, hear(other, "job_start") as starts:
            await die(killed)
            (begun,) = await starts.wait()
        assert [id for stop in rescues.events for id in stop.rescued] == [begun.job.id]
        assert (begun.job.attempt, begun.job.meta) == (2, {"rescued": 1})
        await Held.begun()
        with hear(other, "ack_stop") as acks:
            Held.release()
            await acks.counted(1)
        assert await rows() == [(S.COMPLETED, 2)]

    async def test_a_dead_leader_is_replaced_and_its_jobs_are_rescued(
        self, mortal: Any, start: StartOban, rows: Rows, short: None, sessions: Sessions
    ) -> None:
        killed = await mortal(queues={"default": 1}, node="killed")
        await until(lambda: killed.is_leader)
        await add(sessions, Held.new())
        await Held.begun()
        other = await start(queues={"default": 1}, node="other", **SHORT)
        with hear(other, "job_start") as starts:
            await die(killed)
            await starts.wait()
        assert other.is_leader
        Held.release()

        async def completed() -> bool:
            return await rows() == [(S.COMPLETED, 2)]

        await until(completed)

    async def test_late_outcomes_of_a_node_presumed_dead_are_dropped(
        self,
        start: StartOban,
        rows: Rows,
        short: None,
        sessions: Sessions,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The node is paused while its job is rescued, and finishes the job later."""
        stalled = await start(queues={"default": 1}, node="stalled", leadership=False, **SHORT)
        await add(sessions, Held.new())
        id = await Held.begun()
        pulse = services(stalled).heartbeat._pulse
        thread = services(stalled).heartbeat._thread
        assert pulse is not None
        assert thread is not None
        await thread.run(pulse.stop())
        async with sessions.begin() as session:
            # Restore what stop() deleted, since a paused node deletes nothing.
            (uuid,) = (p.uuid for p in services(stalled).producers.values())
            dead = producer(61)
            dead.uuid = uuid
            session.add(dead)
        other = await start(queues={"default": {"limit": 1, "paused": True}}, **SHORT)
        with hear(other, "rescue_stop") as rescues:
            await rescues.until(lambda events: any(stop.rescued == (id,) for stop in events))
        assert await rows() == [(S.AVAILABLE, 1)]
        services(other).queues.resume_queue("default")
        assert await Held.begun() == id
        with hear(stalled, "ack_stop") as late, hear(other, "ack_stop") as acks:
            Held.release()
            (dropped,) = await late.wait()
            await acks.counted(1)
        assert (dropped.count, dropped.dropped) == (0, (id,))
        assert await rows() == [(S.COMPLETED, 2)]

    async def test_a_long_job_is_never_rescued_while_its_node_lives(
        self, start: StartOban, rows: Rows, short: None, sessions: Sessions
    ) -> None:
        node = await start(queues={"default": 1}, rescue_after=0.001, **SHORT)
        other = await start(queues={"other": 1}, rescue_after=0.001, **SHORT)
        await add(sessions, Held.new())
        await Held.begun()
        async with sessions.begin() as session:
            ten_hours = func.make_interval(0, 0, 0, 0, 10)
            await session.execute(update(Job).values(scheduled_at=Job.scheduled_at - ten_hours))
        with hear(Oban, "rescue_stop") as rescues:
            await rescues.wait(4)
        assert await rows() == [(S.EXECUTING, 1)]
        assert [stop for stop in rescues.events if stop.rescued] == []
        # A busy machine may lose the short lease for a moment.
        await until(lambda: node.is_leader or other.is_leader)

    async def test_a_worker_that_blocks_the_event_loop_loses_nothing(
        self,
        start: StartOban,
        rows: Rows,
        short: None,
        sessions: Sessions,
        postgres_dsn: str,
        prefix: str,
    ) -> None:
        """The leader has another event loop, as in another process, and sees no dead node."""
        passes: list[RescueStop] = []
        looking, done = threading.Event(), threading.Event()

        async def lead() -> None:
            async with Oban(postgres_dsn, prefix=prefix, queues={"other": 1}, **SHORT) as leader:
                event.listen(leader, "rescue_stop", lambda oban, stop: passes.append(stop))
                await until(lambda: bool(passes))
                looking.set()
                await until(done.is_set)

        thread = threading.Thread(target=asyncio.run, args=(lead(),))
        thread.start()
        await until(looking.is_set)
        blocked = await start(queues={"default": 2}, leadership=False, **SHORT)
        with hear(blocked, "ack_stop") as acks:
            await add(sessions, Held.new(), Blocker.new({"seconds": 2.5}))
            await acks.counted(1)
            Held.release()
            await acks.counted(2)
        await until(lambda: len(passes) > 3)
        done.set()
        await until(lambda: not thread.is_alive())
        assert [stop for stop in passes if stop.rescued] == []
        assert await rows() == [(S.COMPLETED, 1)] * 2

    async def test_no_job_is_rescued_after_the_table_of_producers_was_emptied(
        self, start: StartOban, rows: Rows, short: None, sessions: Sessions, prefix: str
    ) -> None:
        """A crash of the server empties the table. The rows come back, and no job is rescued in
        between.
        """
        leader = await start(queues={"default": 1}, **SLOWER)
        await start(queues={"default": 1}, leadership=False, **SLOWER)
        await add(sessions, Held.new(), Held.new())
        for _ in range(2):
            await Held.begun()
        before = set(await uuids(sessions))
        with hear(leader, "rescue_stop") as rescues:
            await rescues.wait()
            async with sessions.begin() as session:
                await session.execute(text(f'TRUNCATE "{prefix}".oban_producers'))
            # One look while all rows are missing, and one when the leader has its row again.
            await lifeline(leader).run_once()
            await heartbeat(leader).run_once()
            assert await lifeline(leader).run_once() > 0

            async def restored() -> bool:
                return set(await uuids(sessions)) == before

            await until(restored)
            seen = len(rescues.events)
            await rescues.wait(seen + 1)
        assert [stop for stop in rescues.events if stop.rescued] == []
        assert await rows() == [(S.EXECUTING, 1)] * 2

    async def test_after_an_outage_no_node_counts_as_dead(
        self,
        proxy: Proxy,
        start: StartOban,
        postgres_dsn: str,
        prefix: str,
        rows: Rows,
        short: None,
        quick: None,
        sessions: Sessions,
        expect_errors: None,
    ) -> None:
        """All rows have expired, and the first node that is back waits for the others."""
        queues = {"default": 1}
        async with Proxy(postgres_dsn) as slower:
            leader = await start(proxy.dsn, prefix=prefix, queues=queues, **SLOWER)
            other = Oban(slower.dsn, prefix=prefix, queues=queues, leadership=False, **SLOWER)
            async with other:
                await add(sessions, Held.new(), Held.new())
                for _ in range(2):
                    await Held.begun()
                with (
                    hear(leader, "service_restored") as back,
                    hear(other, "service_restored") as also_back,
                    hear(leader, "rescue_stop") as rescues,
                ):
                    await rescues.wait()
                    for wire in (proxy, slower):
                        await wire.refuse()
                        wire.cut()

                    async def all_expired() -> bool:
                        async with sessions() as session:
                            silent_for = await session.scalar(
                                select(
                                    func.timezone("UTC", func.now())
                                    - func.max(ProducerRow.updated_at)
                                )
                            )
                        return silent_for is not None and silent_for.total_seconds() > 2.0

                    await until(all_expired)
                    await proxy.allow()
                    await back.until(lambda events: "heartbeat" in {e.service for e in events})
                    await until(lambda: leader.is_leader)
                    assert await lifeline(leader).run_once() > 0
                    await slower.allow()
                    await also_back.until(lambda events: "heartbeat" in {e.service for e in events})
                    seen = len(rescues.events)
                    await rescues.wait(seen + 1)
                assert [stop for stop in rescues.events if stop.rescued] == []
                assert await rows() == [(S.EXECUTING, 1)] * 2
                Held.release()
