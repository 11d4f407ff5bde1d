"""PgBouncer in transaction mode between everything and the server: all of it works, by polling.

What a user has to know: prepared statements belong to one connection to the server, and a client
gets another one for each transaction. PgBouncer before 1.21 does not track prepared statements.
psycopg prepares a statement that it has sent five times. asyncpg prepares all statements, under
numbered names. So an engine has to be made with the `connect_args` below, and a connection of
psycopg with `prepare_threshold=None`.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.pool import Pool

from oban_sqla import Cancel, Job, Oban, Snooze, Worker
from oban_sqla.runtime import notifier
from oban_sqla.runtime.cron import Cron
from oban_sqla.runtime.database import Database
from tests.conftest import StartOban, Tune
from tests.databases import async_engine
from tests.enqueue.conn_kinds import CONN_KINDS, opened
from tests.failures.conftest import Runs, Spawn, ended, enqueue, name_of, notes
from tests.failures.pgbouncer import PROGRAM, PgBouncer
from tests.listening import hear

pytestmark = [
    pytest.mark.torture,
    pytest.mark.skipif(PROGRAM is None, reason="PgBouncer is not installed (package pgbouncer)"),
]

UNPREPARED = {"prepare_threshold": None}
NEVER_TWICE = {
    "statement_cache_size": 0,
    "prepared_statement_cache_size": 0,
    "prepared_statement_name_func": lambda: f"__{uuid4()}__",
}
POLLING = {"notify": "poll", "poll_interval": 0.05}


class Quick(Worker, name="pooled.quick"):
    async def process(self, job: Job) -> None: ...


class Fickle(Worker, name="pooled.fickle", max_attempts=4):
    """Fails once, snoozes once, and completes."""

    async def process(self, job: Job) -> Snooze | None:
        if not job.errors:
            raise ValueError("the first time")
        return None if "snoozed" in job.meta else Snooze(0.05)

    def backoff(self, job: Job) -> float:
        return 0.05


class Patient(Worker, name="pooled.patient"):
    """Runs until it is cancelled."""

    async def process(self, job: Job) -> Cancel:
        while not job.cancelled():  # noqa: ASYNC110 - that is how a worker looks
            await asyncio.sleep(0.01)
        return Cancel("as was asked for")


@pytest.fixture
async def bouncer(postgres_dsn: str) -> AsyncIterator[PgBouncer]:
    async with PgBouncer(postgres_dsn) as bouncer:
        yield bouncer


@pytest.fixture(params=["psycopg", "asyncpg"])
async def pooled(
    request: pytest.FixtureRequest, bouncer: PgBouncer, prefix: str
) -> AsyncIterator[AsyncEngine]:
    """An engine with the settings that PgBouncer needs."""
    arguments = UNPREPARED if request.param == "psycopg" else NEVER_TWICE
    engine = async_engine(bouncer.dsn, prefix, request.param, connect_args=arguments)
    yield engine
    await engine.dispose()


@pytest.fixture
def unprepared() -> Iterator[None]:
    """Stop SQLAlchemy's connections from preparing statements, as `connect_args` would."""

    def set_threshold(connection: Any, record: Any) -> None:
        if hasattr(record.driver_connection, "prepare_threshold"):
            record.driver_connection.prepare_threshold = None

    event.listen(Pool, "connect", set_threshold)
    yield
    event.remove(Pool, "connect", set_threshold)


# asyncpg names its statements. Its users must configure that themselves. Beside a node on asyncpg,
# two kinds of `conn` suffice.
@pytest.mark.parametrize(
    ("name", "pooled"),
    [
        *((name, "psycopg") for name in CONN_KINDS if "asyncpg" not in name),
        ("AsyncSession-psycopg", "asyncpg"),
        ("psycopg.Connection", "asyncpg"),
    ],
    indirect=["pooled"],
)
@pytest.mark.usefixtures("unprepared")
async def test_jobs_of_each_kind_of_conn_run(
    name: str, bouncer: PgBouncer, pooled: AsyncEngine, start: StartOban, prefix: str, runs: Runs
) -> None:
    """Two clients take turns, so that they swap connections, and often enough for prepared
    statements.
    """
    oban = Oban(pooled, name="client")
    async with opened(name, bouncer.dsn, prefix) as one, opened(name, bouncer.dsn, prefix) as other:
        for kind in (one, other):
            if hasattr(kind, "connection") and hasattr(kind.connection, "prepare_threshold"):
                kind.connection.prepare_threshold = None
        for n in range(10):
            # Out of step: otherwise both would prepare the same statement under one name, without
            # an error.
            kinds = (one, other) if n > 2 else (one,)
            for kind in kinds:
                await oban.enqueue(Quick.new({"n": n}), conn=kind.conn)
                await kind.flush()
            for kind in reversed(kinds):
                await (kind.rollback() if n == 9 else kind.commit())
    ours = await start(pooled, queues={"default": 5}, **POLLING)
    with hear(ours, "ack_stop") as acks:
        await acks.counted(15)
    assert runs.states() == {"completed": 15}


async def test_scheduled_retried_and_snoozed_jobs_run(
    pooled: AsyncEngine, start: StartOban, runs: Runs
) -> None:
    ours = await start(pooled, queues={"default": 5}, **POLLING)
    at = datetime.now(UTC) + timedelta(seconds=0.3)
    with hear(ours, "job_stop") as stops:
        await ours.enqueue_many(Fickle.new() for _ in range(10))
        await ours.enqueue_many(Quick.new(scheduled_at=at) for _ in range(10))
        await stops.until(lambda stops: sum(s.state == "completed" for s in stops) == 20)
    assert all(s.job.attempted_at >= at for s in stops.events if s.job.worker == "pooled.quick")
    await runs.all_completed(20)


async def test_no_statement_fails_when_two_instances_are_busy(
    pooled: AsyncEngine, start: StartOban, runs: Runs
) -> None:
    with hear(Oban, "service_failed") as failures:
        one = await start(pooled, queues={"default": 20}, node="one", **POLLING)
        await start(pooled, queues={"default": 20}, node="two", **POLLING)
        for _ in range(10):
            await one.enqueue_many(Quick.new() for _ in range(50))
            await asyncio.gather(*(one.enqueue(Quick.new()) for _ in range(10)))
        await runs.all_completed(600)
    assert failures.events == []


async def test_each_of_2000_jobs_runs_once_on_two_nodes(
    bouncer: PgBouncer, pooled: AsyncEngine, spawn: Spawn, runs: Runs
) -> None:
    nodes = [
        await spawn(bouncer.dsn, limit=10, notify="poll", connect_args=UNPREPARED) for _ in range(2)
    ]
    for _ in range(20):
        await enqueue(async_sessionmaker(pooled), notes(100))
    await runs.all_completed(2_000)
    assert len(runs.per_job()) == 2_000
    assert set(runs.per_job().values()) == {1}
    for node in nodes:
        node.terminate()
        assert await ended(node) == 0
    assert runs.producers() == {}


async def test_the_leader_is_followed_and_its_jobs_are_rescued(
    bouncer: PgBouncer, pooled: AsyncEngine, spawn: Spawn, runs: Runs
) -> None:
    """No notification arrives: the lease and the heartbeats expire."""
    options = {"notify": "poll", "connect_args": UNPREPARED, "heartbeat_expiry": 2.0}
    nodes = [await spawn(bouncer.dsn, limit=5, **options) for _ in range(2)]
    await enqueue(async_sessionmaker(pooled), notes(500, 0.01))
    await runs.until(lambda: runs.count() >= 50 and runs.leader() is not None)
    killed, other = sorted(nodes, key=lambda node: name_of(node) != runs.leader())
    killed.kill()
    await ended(killed)
    await runs.until(lambda: runs.leader() == name_of(other))
    await runs.all_completed(500)
    # Five ran. In 50 ms 25 jobs of 10 ms end: so many may be held, and so many unwritten.
    assert 0 < len(runs.rescued()) <= 5 + 25 + 25
    assert {id for id, count in runs.per_job().items() if count > 1} <= runs.rescued().keys()
    other.terminate()
    assert await ended(other) == 0
    # The leader resigned.
    assert runs.leader() is None


async def test_jobs_run_after_the_pooler_is_restarted(
    bouncer: PgBouncer, spawn: Spawn, runs: Runs, sessions: async_sessionmaker[AsyncSession]
) -> None:
    node = await spawn(bouncer.dsn, limit=5, notify="poll", connect_args=UNPREPARED)
    await enqueue(sessions, notes(600, 0.002))
    for expected in (100, 300):
        await runs.until(lambda expected=expected: runs.count() >= expected)
        await bouncer.stop()
        await bouncer.start()
    await runs.all_completed(600)
    assert set(runs.per_job().values()) == {1}
    node.terminate()
    assert await ended(node) == 0


async def test_an_instance_made_from_a_url_works(
    bouncer: PgBouncer, start: StartOban, prefix: str, runs: Runs
) -> None:
    """The URL has the settings that PgBouncer needs, as with the command."""
    url = f"{bouncer.dsn}?prepare_threshold=none"
    ours = await start(url, prefix=prefix, queues={"default": 5}, **POLLING)
    for _ in range(10):
        await ours.enqueue_many(Quick.new() for _ in range(10))
    await runs.all_completed(100)


class TestOrders:
    """Nodes find orders in the table, by polling."""

    async def test_a_queue_is_paused_and_resumed_by_another_node(
        self, pooled: AsyncEngine, start: StartOban, runs: Runs
    ) -> None:
        node = await start(pooled, queues={"default": 5}, node="node", **POLLING)
        client = Oban(pooled, node="client")
        with hear(node, "queue_paused") as paused:
            await client.pause_queue("default")
            await paused.wait()
        await client.enqueue(Quick.new())
        with hear(node, "ack_stop") as acks:
            await client.resume_queue("default")
            await acks.counted(1)
        await client.scale_queue(queue="default", limit=9)
        await runs.until(lambda: node.check_queue("default").limit == 9)

    async def test_a_running_job_is_cancelled_by_another_node(
        self, pooled: AsyncEngine, start: StartOban, runs: Runs
    ) -> None:
        node = await start(pooled, queues={"default": 5}, node="node", **POLLING)
        client = Oban(pooled, node="client")
        with hear(node, "job_start") as starts:
            job = await client.enqueue(Patient.new())
            await starts.wait()
        assert await client.cancel_jobs(job) == 1
        await runs.until(lambda: runs.states() == {"cancelled": 1})


class TestLeading:
    async def test_two_leaders_enqueue_a_tick_once(
        self,
        pooled: AsyncEngine,
        prefix: str,
        runs: Runs,
        no_workers: None,
    ) -> None:
        class Tick(Worker, name="pooled.tick", cron="* * * * *"):
            async def process(self, job: Job) -> None: ...

        services = [
            Cron(
                Database(pooled, prefix),
                lambda name, data: None,
                is_leader=lambda: True,
                instance="Oban",
                timezone="UTC",
                wake_queues=lambda queues: None,
            )
            for _ in range(4)
        ]
        noon = datetime(2026, 11, 1, 12, tzinfo=UTC)
        for minute in range(10):
            for cron in services:
                cron.now = noon + timedelta(minutes=minute)
            await asyncio.gather(*(cron.run_once() for cron in services))
        assert runs.ticks() == [noon + timedelta(minutes=minute) for minute in range(1, 10)]

    async def test_finished_jobs_are_pruned(
        self, pooled: AsyncEngine, start: StartOban, runs: Runs
    ) -> None:
        one = await start(pooled, queues={"default": 5}, leadership=False, **POLLING)
        await one.enqueue_many(Quick.new() for _ in range(20))
        await runs.all_completed(20)
        await start(pooled, queues={"other": 1}, retention=0, **POLLING)
        await runs.until(lambda: runs.states() == {})


class TestListen:
    async def test_queues_poll_because_listen_does_not_work(
        self, pooled: AsyncEngine, start: StartOban, tune: Tune
    ) -> None:
        tune(notifier, ECHO_TIMEOUT=0.5)
        with hear(Oban, "notifier_lost") as lost:
            ours = await start(pooled, queues={"default": 5}, poll_interval=0.05)
            with hear(ours, "ack_stop") as acks:
                await ours.enqueue(Quick.new())
                await acks.counted(1)
            reason = (await lost.wait())[0].reason
        assert "as behind a transaction pooler" in reason
        assert "listen_dsn=" in reason

    async def test_listen_works_over_a_direct_connection(
        self,
        postgres_dsn: str,
        pooled: AsyncEngine,
        start: StartOban,
        sessions: async_sessionmaker[AsyncSession],
    ) -> None:
        """A node hears at once of jobs that another process enqueues."""
        options = {"fallback_interval": 3600.0, "listen_dsn": postgres_dsn}
        ours = await start(pooled, queues={"default": 5}, **options)
        with hear(ours, "ack_stop") as acks:
            await enqueue(sessions, [Job("pooled.quick")])
            await acks.counted(1)
