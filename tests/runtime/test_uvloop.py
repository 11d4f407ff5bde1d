"""A node on uvloop, whose handles and clocks differ from asyncio's own."""

import asyncio
import math
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import func, select

from oban_sqla import Oban
from oban_sqla.runtime.database import Database
from oban_sqla.runtime.service import Service
from tests.databases import async_engine
from tests.listening import PATIENCE, hear
from tests.runtime.workers import Quick

uvloop = pytest.importorskip("uvloop")


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def within() -> None:
        async with asyncio.timeout(PATIENCE):
            await main()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(within())


def test_a_service_may_be_woken_twice_at_once() -> None:
    class Waiting(Service):
        label = "waiting"

        async def run_once(self) -> float:
            passes.append(1)
            passed.set()
            return math.inf

    passes: list[int] = []
    passed = asyncio.Event()

    async def main() -> None:
        service = Waiting(lambda name, data: None)
        await service.start()
        await passed.wait()
        passed.clear()
        service.wake_in(0)
        service.wake_in(0)
        service.wake_in(-1)
        await passed.wait()
        await service.stop()

    run(main)
    assert len(passes) >= 2


def test_statements_wait_for_the_first_connection(postgres_dsn: str, prefix: str) -> None:
    async def main() -> None:
        engine = async_engine(postgres_dsn, prefix)
        database = Database(engine, prefix)
        database.keep_connections()
        pid = select(func.pg_backend_pid())
        found = await asyncio.gather(*(database.fetch(pid) for _ in range(9)))
        assert len({pid for ((pid,),) in found}) == 1
        await database.release_connections()
        await engine.dispose()

    run(main)


def test_a_node_runs_jobs(postgres_dsn: str, prefix: str) -> None:
    async def main() -> None:
        engine = async_engine(postgres_dsn, prefix)
        async with Oban(engine, queues={"default": 5, "other": 5}) as oban:
            with hear(oban, "ack_stop") as acks:
                await oban.enqueue_many(Quick.new() for _ in range(100))
                await oban.enqueue(Quick.new(queue="other", schedule_in=0.01))
                await acks.counted(101)
        await engine.dispose()

    run(main)
