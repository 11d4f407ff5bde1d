"""The sessions of plain workers: the next jobs use their connections again."""

import asyncio
import threading
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session

from oban_sqla import Job, Worker
from oban_sqla.runtime import session_threads as module
from oban_sqla.runtime.database import Database
from oban_sqla.runtime.session_threads import close_session_threads, session_threads
from oban_sqla.testing import drain_queue
from tests.conftest import Add, StartOban, Tune
from tests.listening import hear
from tests.runtime.conftest import until

BACKEND = text("SELECT pg_backend_pid()")
pids: list[int] = []


class Backend(Worker, name="session_threads.backend"):
    def process(self, job: Job, session: Session) -> None:
        pids.append(session.scalars(BACKEND).one())
        if job.args.get("fails"):
            raise ValueError("boom")


@pytest.fixture(autouse=True)
def none_yet() -> None:
    pids.clear()


def threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if isinstance(one, module._Thread)]


async def connected(engine: AsyncEngine, pid: int) -> bool:
    async with engine.connect() as connection:
        query = text("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid")
        return bool(await connection.scalar(query, {"pid": pid}))


async def run_in_thread(database: Database, work: module.Work) -> Any:
    result, error = await session_threads(database).start(database, work, "test")
    assert error is None
    return result


async def test_consecutive_jobs_share_a_connection(
    start: StartOban, add: Add, engine: AsyncEngine
) -> None:
    oban = await start(queues={"default": 1})
    with hear(oban, "ack_stop") as acks:
        await add(*(Backend.new({"fails": n == 1}, max_attempts=5) for n in range(4)))
        await acks.counted(4)
    assert len(pids) == 4
    assert len(set(pids)) == 1
    await oban.stop()
    await until(lambda: not threads())
    assert not await connected(engine, pids[0])


async def test_concurrent_jobs_have_a_connection_each(engine: AsyncEngine) -> None:
    database = Database(engine, None)
    both = threading.Barrier(2, timeout=10)

    def work(session: Session) -> int:
        both.wait()
        return session.scalars(BACKEND).one()

    async def run(apart: Database) -> int:
        async with apart.worker_session() as session:
            return await session.run_sync(work)

    runs = [run_in_thread(database, run) for _ in range(2)]
    assert len(set(await asyncio.gather(*runs))) == 2
    await close_session_threads(database)
    assert not threads()


async def test_a_thread_without_work_ends(engine: AsyncEngine, tune: Tune) -> None:
    tune(module, IDLE=0.01)
    database = Database(engine, None)

    async def run(apart: Database) -> Any:
        return await apart.fetch(BACKEND)

    first = await run_in_thread(database, run)
    await until(lambda: not threads())
    assert not await connected(engine, first[0][0])
    assert await run_in_thread(database, run) != first
    await close_session_threads(database)


async def test_draining_leaves_no_thread(engine: AsyncEngine, start: StartOban, add: Add) -> None:
    oban = await start()
    await add(Backend.new(), Backend.new())
    assert (await drain_queue(oban))["completed"] == 2
    assert len(set(pids)) == 1
    assert not threads()
