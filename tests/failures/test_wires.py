"""Cut connections, and a server that goes away, under load."""

import asyncio
import random
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from oban_sqla.embedded import embedded_postgres
from oban_sqla.migrations import upgrade
from tests.databases import async_engine, sync_engine
from tests.failures.conftest import PATIENCE, Runs, Spawn, ended, enqueue, notes
from tests.proxy import Proxy
from tests.schemas import APPLICATION

pytestmark = pytest.mark.torture

Sessions = async_sessionmaker[AsyncSession]


@asynccontextmanager
async def meanwhile(work: object) -> AsyncIterator[None]:
    """Repeat a function during a block."""

    async def repeat() -> None:
        while True:
            await work()

    task = asyncio.create_task(repeat())
    try:
        yield
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def enqueue_persistently(sessions: Sessions, batches: int, size: int) -> int:
    """Enqueue through a connection that is cut. Returns the number of jobs that surely exist."""
    certain = 0
    for _ in range(batches):
        try:
            await enqueue(sessions, notes(size, 0.002))
        except (DBAPIError, OSError):
            # The commit may have reached the server or not, but never a part of it.
            continue
        certain += size
    return certain


async def finish(runs: Runs, certain: int, size: int) -> None:
    """Check that no job is stuck or lost, and that all have run."""
    await runs.until(lambda: set(runs.states()) == {"completed"}, "not all completed:")
    total = runs.states()["completed"]
    assert total >= certain
    assert total % size == 0
    assert len(runs.per_job()) == total


async def test_connections_cut_at_any_moment_lose_no_job(
    runs: Runs, spawn: Spawn, proxy: Proxy, prefix: str
) -> None:
    """Cut connections many times: during claims, acks, stages, heartbeats and enqueues."""
    nodes = [await spawn(proxy.dsn, limit=10) for _ in range(2)]
    engine = async_engine(proxy.dsn, prefix)
    cuts = 0

    async def cut() -> None:
        nonlocal cuts
        await asyncio.sleep(random.uniform(0.01, 0.2))
        proxy.cut()
        cuts += 1

    async with meanwhile(cut):
        certain = await enqueue_persistently(async_sessionmaker(engine), 100, 20)
        await runs.until(lambda: cuts >= 30)
    await engine.dispose()
    await finish(runs, certain, 20)
    for node in nodes:
        node.terminate()
        assert await ended(node) == 0


async def test_lost_answers_lose_no_job(
    runs: Runs, spawn: Spawn, proxy: Proxy, sessions: Sessions
) -> None:
    """The server carries out a claim or an ack, and its answer is lost."""
    node = await spawn(proxy.dsn, limit=10)
    lost = 0

    async def lose() -> None:
        nonlocal lost
        claim = next(iter(await asyncio.to_thread(runs.producers)), "").encode()
        for marker in (claim, b'"state": "completed"'):
            if marker:
                await proxy.lose_answer(marker).wait()
                lost += 1

    async with meanwhile(lose):
        await enqueue(sessions, notes(1_000, 0.002))
        await runs.until(lambda: lost >= 10 or runs.states() == {"completed": 1_000})
    await runs.all_completed(1_000)
    assert lost >= 6
    assert set(runs.per_job().values()) == {1}  # the lost job had not begun, or was acknowledged
    node.terminate()
    assert await ended(node) == 0


async def test_a_vanished_server_is_noticed_before_the_time_limit_of_answers(
    runs: Runs, spawn: Spawn, proxy: Proxy, sessions: Sessions
) -> None:
    """No packet of an open connection arrives any more, and nobody is told."""
    # The settings that an engine made from a URL has, with shorter times.
    settings = {"tcp_user_timeout": 2_000, "keepalives_idle": 1, "keepalives_interval": 1}
    node = await spawn(proxy.dsn, limit=10, connect_args=settings)
    await enqueue(sessions, notes(1_000, 0.005))
    for _ in range(3):
        before = runs.completed()
        await runs.until(lambda before=before: runs.completed() > before + 100)
        assert proxy.lose() > 0
    await runs.all_completed(1_000)
    assert set(runs.per_job().values()) == {1}
    node.terminate()
    assert await ended(node) == 0


async def test_terminated_backends_lose_no_job(
    runs: Runs, spawn: Spawn, postgres_dsn: str, prefix: str, sessions: Sessions
) -> None:
    nodes = [await spawn(limit=10) for _ in range(2)]

    async def terminate() -> None:
        await asyncio.sleep(0.1)
        async with await psycopg.AsyncConnection.connect(postgres_dsn, autocommit=True) as own:
            await own.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE query LIKE %s AND pid <> pg_backend_pid() AND query NOT LIKE %s"
                " AND application_name <> %s",
                [f"%{prefix}%", "%runs%", APPLICATION],
            )

    certain = 0
    async with meanwhile(terminate):
        certain = await enqueue_persistently(sessions, 100, 20)
        await runs.until(lambda: runs.count() >= certain // 2)
    await finish(runs, certain, 20)
    for node in nodes:
        node.terminate()
        assert await ended(node) == 0


def installed(dsn: str) -> Runs:
    """Install the tables in an empty database."""
    engine = sync_engine(dsn, "public")
    with engine.begin() as connection:
        upgrade(connection)
    engine.dispose()
    runs = Runs(dsn, "public")
    runs.install()
    return runs


async def test_a_restarted_server_loses_no_job(spawn: Spawn) -> None:
    """The server is restarted twice under load, on the same address, with unlogged tables emptied
    or not.
    """
    with tempfile.TemporaryDirectory(prefix="oban-") as directory:
        server = embedded_postgres(directory)
        async with server as dsn:
            runs = installed(dsn)
            engine = async_engine(dsn, "public")
            sessions = async_sessionmaker(engine)
            node = await spawn(dsn, runs_dsn=dsn, schema="public", limit=5)
            await enqueue(sessions, notes(1_000, 0.005))
        for expected in (100, 400):
            async with server:
                await runs.until(lambda expected=expected: runs.count() >= expected)
        async with server:
            await runs.all_completed(1_000)
            await runs.until(lambda: len(runs.producers()) == 1)
            await engine.dispose()
            node.terminate()
            assert await ended(node) == 0


async def test_no_living_node_loses_its_jobs_after_a_crash_of_the_server(spawn: Spawn) -> None:
    """The unlogged tables are empty, and more than `heartbeat_expiry` has passed."""
    expiry = 3.0
    with tempfile.TemporaryDirectory(prefix="oban-") as directory:
        server = embedded_postgres(directory)
        async with server as dsn:
            runs = installed(dsn)
            engine = async_engine(dsn, "public")
            options = {"runs_dsn": dsn, "schema": "public", "heartbeat_expiry": expiry}
            nodes = [await spawn(dsn, limit=5, **options) for _ in range(2)]
            await enqueue(async_sessionmaker(engine), notes(10, 2.5 * expiry))
            await engine.dispose()
            await runs.until(lambda: runs.count() == 10)
            known = runs.producers()
            assert len(known) == 2
            runs.add_producer("forgotten")
            crash(dsn)
        await asyncio.sleep(1.1 * expiry)
        async with server:
            await runs.until(lambda: runs.producers() == known, "they did not come back:")
            await runs.all_completed(10)
            assert runs.rescued() == {}
            assert set(runs.per_job().values()) == {1}
            assert runs.attempts("completed") == {1}
            for node in nodes:
                node.terminate()
                assert await ended(node) == 0


def crash(dsn: str) -> None:
    """Kill a server without a shutdown, and wait until it is gone."""
    data = Path(str(conninfo_to_dict(dsn)["host"]))
    postmaster = psutil.Process(int((data / "postmaster.pid").read_text().split()[0]))
    postmaster.send_signal(signal.SIGQUIT)
    postmaster.wait(PATIENCE)
