"""Failover: a standby is promoted, and an endpoint leads to it some time later."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from oban_sqla import Job, JobState, Oban, StandbyError, Worker
from oban_sqla.config import Config
from oban_sqla.doctor.examination import examine
from oban_sqla.embedded.cluster import Cluster
from oban_sqla.migrations import LATEST, upgrade
from oban_sqla.monitor.status import status
from oban_sqla.runtime.database import Database
from tests.databases import async_engine
from tests.listening import hear
from tests.proxy import Proxy
from tests.runtime.conftest import until
from tests.runtime.workers import Quick

pytestmark = pytest.mark.torture

PATIENCE = 60.0
SWITCH = 3.0
"""Seconds after the promotion until the endpoint leads to the new primary."""
EXPIRY = 20.0


class Notes(Worker, queue="sessions", max_attempts=1):
    """A worker that writes in its session for so long that many have connections at once."""

    async def process(self, job: Job, session: AsyncSession) -> None:
        await session.execute(text("INSERT INTO notes SELECT 1 FROM pg_sleep(0.2)"))


class Pair:
    """A primary and its standby, on one machine."""

    def __init__(self, directory: Path) -> None:
        version = int(os.environ.get("OBAN_TEST_POSTGRES", "18"))
        self.primary = Cluster(directory / "a", version)
        self.standby = Cluster(directory / "b", version)
        for cluster in (self.primary, self.standby):
            cluster.data.parent.mkdir()

    def start(self) -> None:
        self.primary.ensure_initialized(durable=False)
        self._start(self.primary)
        self._copy()
        self._start(self.standby)

    def stop(self) -> None:
        for cluster in (self.standby, self.primary):
            cluster.ensure_stopped("immediate")

    def change_places(self) -> None:
        """Promote the standby, and make the former primary its standby."""
        self.primary.ensure_stopped("fast")
        with psycopg.connect(dsn(self.standby), autocommit=True) as connection:
            connection.execute("SELECT pg_promote()")
        self._follow(self.primary, self.standby)
        self._start(self.primary)

    def _copy(self) -> None:
        data = self.standby.data
        data.mkdir(mode=0o700)
        owner = self.primary.data.stat()
        os.chown(data, owner.st_uid, owner.st_gid)
        self.standby._run("pg_basebackup", f"--pgdata={data}", f"--dbname={dsn(self.primary)}")
        self._follow(self.standby, self.primary)

    def _follow(self, follower: Cluster, leader: Cluster) -> None:
        (follower.data / "standby.signal").touch()
        with (follower.data / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"primary_conninfo = '{dsn(leader)}'\n")

    def _start(self, cluster: Cluster) -> None:
        cluster.configure(["max_connections = 100", "hot_standby = on", "fsync = off"])
        cluster.ensure_started()


def dsn(cluster: Cluster) -> str:
    return f"host={cluster.data} port=5432 user=postgres dbname=postgres"


def url(cluster: Cluster) -> str:
    return f"postgresql://postgres@/postgres?host={cluster.data}&port=5432"


@pytest.fixture
def pair() -> Iterator[Pair]:
    # Not pytest's directory, since the path of a socket must be short.
    directory = Path(tempfile.mkdtemp(prefix="oban-pair-"))
    directory.chmod(0o755)
    pair = Pair(directory)
    try:
        pair.start()
        yield pair
    finally:
        pair.stop()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
async def tables(pair: Pair) -> None:
    engine = async_engine(url(pair.primary), "public")
    async with engine.begin() as connection:
        await connection.run_sync(upgrade)
        await connection.execute(text("CREATE TABLE notes (number int)"))
    await engine.dispose()


@pytest.mark.parametrize("pre_ping", [False, True], ids=["", "pre-ping"])
@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_every_loop_works_on_the_new_primary(
    pair: Pair, tables: None, expect_errors: None, driver: str, pre_ping: bool
) -> None:
    async with Proxy(dsn(pair.primary)) as endpoint:
        given = make_url(endpoint.dsn).set(drivername=f"postgresql+{driver}")
        if driver == "asyncpg":
            given = given.set(query={"ssl": "disable"})
        engine = create_async_engine(given, pool_pre_ping=pre_ping)
        oban = Oban(engine, queues={"default": 5}, heartbeat_expiry=EXPIRY, poll_interval=0.5)
        enqueued: list[int] = []

        async def enqueue() -> None:
            while True:
                # A failed enqueue did not happen. Its connection is closed, like any other.
                with suppress(Exception):
                    job = await oban.enqueue(Quick.new())
                    enqueued.append(job.id)
                await asyncio.sleep(0.05)

        with hear(oban, "ack_stop") as acks, hear(oban, "stage_stop") as stages:
            await oban.start()
            enqueueing = asyncio.create_task(enqueue())
            await acks.counted(20)
            await asyncio.to_thread(pair.change_places)
            await asyncio.sleep(SWITCH)
            endpoint.lead_to(dsn(pair.standby))
            switched = len(acks.events)
            async with asyncio.timeout(EXPIRY):
                await acks.until(lambda events: sum(e.count for e in events[switched:]) >= 20)
            staged = len(stages.events)
            later = await oban.enqueue(Quick.new(schedule_in=timedelta(seconds=0.5)))
            async with asyncio.timeout(EXPIRY):
                await stages.until(lambda events: any(e.count for e in events[staged:]))
            enqueueing.cancel()
            with suppress(asyncio.CancelledError):
                await enqueueing
            async with asyncio.timeout(EXPIRY):
                await oban.wait(later)
                await until(lambda: oban.is_leader)
                await until(lambda: all_alive(pair.standby))
            assert all(job.is_finished for job in await oban.wait_many(enqueued, timeout=PATIENCE))
            await oban.stop()
        await engine.dispose()


async def test_sessions_of_workers_are_not_given_connections_to_a_standby(
    pair: Pair, tables: None, expect_errors: None
) -> None:
    """All connections of the pool lead to the former primary, which still answers."""
    async with Proxy(dsn(pair.primary)) as endpoint:
        engine = create_async_engine(make_url(endpoint.dsn).set(drivername="postgresql+psycopg"))
        oban = Oban(engine, queues={"sessions": 5}, heartbeat_expiry=EXPIRY, poll_interval=0.5)
        async with oban:

            async def run(count: int) -> list[JobState]:
                """Run this number of jobs, and return their states at the end."""
                async with await psycopg.AsyncConnection.connect(dsn(pair.standby)) as connection:
                    jobs = await oban.enqueue_many(
                        [Notes.new() for _ in range(count)], conn=connection
                    )
                return [job.state for job in await oban.wait_many(jobs, timeout=PATIENCE)]

            await oban.wait_many(
                await oban.enqueue_many(Notes.new() for _ in range(5)), timeout=PATIENCE
            )
            await asyncio.to_thread(pair.change_places)
            await read_at_once(engine, 5)
            endpoint.lead_to(dsn(pair.standby))
            # Each of five connections may find once that its server is not the primary any more.
            await run(5)
            assert await run(20) == [JobState.COMPLETED] * 20
        await engine.dispose()


async def read_at_once(engine: AsyncEngine, count: int) -> None:
    """Leave this number of connections in the pool, like an application that only reads."""
    async with AsyncExitStack() as connections:
        for _ in range(count):
            while True:
                connection = await connections.enter_async_context(engine.connect())
                with suppress(DBAPIError):
                    await connection.execute(text("SELECT 1"))
                    break


async def all_alive(cluster: Cluster) -> bool:
    """Whether each queue's node has had a heartbeat within an interval."""
    query = (
        "SELECT bool_and(updated_at > timezone('UTC', now()) - interval '7 s') FROM oban_producers"
    )
    async with await psycopg.AsyncConnection.connect(dsn(cluster)) as connection:
        return await (await connection.execute(query)).fetchone() == (True,)


async def replayed(cluster: Cluster, position: str) -> bool:
    """Whether a standby has replayed the primary's WAL up to a position."""
    query = "SELECT pg_last_wal_replay_lsn() >= %s"
    async with await psycopg.AsyncConnection.connect(dsn(cluster)) as connection:
        return await (await connection.execute(query, [position])).fetchone() == (True,)


async def test_an_error_names_a_standby(pair: Pair, tables: None) -> None:
    async with await psycopg.AsyncConnection.connect(dsn(pair.primary)) as connection:
        cursor = await connection.execute("SELECT pg_current_wal_lsn()")
        ((position,),) = await cursor.fetchall()
    await until(lambda: replayed(pair.standby, position))
    database = Database(url(pair.standby), "public")
    with pytest.raises(StandbyError, match="is a standby"):
        await status(database)
    findings = [finding async for finding in examine(database, Config.check(), latest=LATEST)]
    (found,) = [finding for finding in findings if finding.level == "problem"]
    assert found.check == "server"
    assert "is a standby" in found.text
    await database.dispose()
    async with await psycopg.AsyncConnection.connect(dsn(pair.standby)) as reader:
        with pytest.raises(StandbyError, match="stores no jobs"):
            await Quick.enqueue({}, conn=reader)
        await reader.execute("SELECT 1")
