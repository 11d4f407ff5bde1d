"""Cron: each tick is enqueued once, whichever node leads."""

import asyncio
import math
import threading
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from oban_sqla import Job, Oban, Worker
from oban_sqla.models import ProducerRow
from oban_sqla.runtime import cron as cron_module
from oban_sqla.runtime.cron import Cron
from oban_sqla.runtime.database import Database
from oban_sqla.statements import cron as cron_statements
from oban_sqla.workers import registry
from tests.conftest import StartOban, Tune
from tests.databases import async_engine
from tests.listening import PATIENCE, hear

Sessions = async_sessionmaker[AsyncSession]
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)

pytestmark = pytest.mark.usefixtures("no_workers")


def declare(expr: str = "* * * * *", catch_up: str | None = "last") -> type[Worker]:
    class Tick(
        Worker,
        name="tick",
        queue="cron",
        meta={"own": 1},
        cron={"expr": expr, "catch_up": catch_up, "timezone": "Europe/Berlin"},
    ):
        async def process(self, job: Job) -> None: ...

    return Tick


def service(engine: AsyncEngine, prefix: str, leads: bool = True) -> Cron:
    def wake(queues: Collection[str]) -> None: ...

    return Cron(
        Database(engine, prefix),
        lambda name, data: None,
        is_leader=lambda: leads,
        instance="Oban",
        timezone="UTC",
        wake_queues=wake,
    )


async def ticks(sessions: Sessions) -> list[str]:
    async with sessions() as session:
        jobs = await session.scalars(select(Job).order_by(Job.id))
        return [datetime.fromisoformat(job.meta["cron_at"]).strftime("%H:%M") for job in jobs]


async def at(cron: Cron, instant: datetime) -> float:
    cron.now = instant
    return await cron.run_once()


async def started(sessions: Sessions, name: str, instant: datetime) -> None:
    async with sessions.begin() as session:
        await session.execute(ProducerRow.__table__.delete())
        session.add(
            ProducerRow(
                uuid="0b3c5d8e-0000-4000-8000-000000000000",
                name="Oban",
                node=name,
                queue="cron",
                started_at=instant,
                updated_at=instant,
            )
        )


async def test_a_tick_is_enqueued_when_it_comes(
    engine: AsyncEngine, prefix: str, sessions: Sessions
) -> None:
    declare()
    cron = service(engine, prefix)
    assert 29 < await at(cron, NOON - timedelta(seconds=30)) <= 30
    assert await ticks(sessions) == []
    assert 59 < await at(cron, NOON) <= 60
    await at(cron, NOON + timedelta(seconds=10))
    assert await ticks(sessions) == ["12:00"]
    async with sessions() as session:
        job = (await session.scalars(select(Job))).one()
    assert (job.queue, job.args) == ("cron", {})
    assert job.meta == {
        "own": 1,
        "cron": True,
        "cron_at": "2026-11-01T12:00:00+00:00",
        "cron_expr": "* * * * *",
        "cron_name": job.meta["cron_name"],
        "cron_tz": "Europe/Berlin",
    }


async def test_a_hanging_leader_does_not_block_other_leaders(
    engine: AsyncEngine, postgres_dsn: str, prefix: str, sessions: Sessions, tune: Tune
) -> None:
    """The leader hangs within the transaction of a pass, as if its process was stopped."""
    tune(cron_statements, LONGEST_IDLE="100ms")
    declare()
    other = service(engine, prefix)
    await at(other, NOON - timedelta(seconds=30))
    stands, goes_on = threading.Event(), threading.Event()

    async def lead() -> None:
        stopped = async_engine(postgres_dsn, prefix)

        @event.listens_for(stopped.sync_engine, "before_cursor_execute")
        def stand_still(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
            if "INSERT INTO" in statement and "oban_jobs" in statement:
                stands.set()
                goes_on.wait(PATIENCE)

        with pytest.raises(DBAPIError):
            await at(service(stopped, prefix), NOON)
        await stopped.dispose()

    with ThreadPoolExecutor(1) as threads:
        leading = threads.submit(asyncio.run, lead())
        try:
            await asyncio.to_thread(stands.wait, PATIENCE)
            async with asyncio.timeout(PATIENCE):
                await at(other, NOON)
        finally:
            goes_on.set()
        await asyncio.wrap_future(leading)
    assert await ticks(sessions) == ["12:00"]


async def test_two_leaders_enqueue_each_tick_once(
    engine: AsyncEngine, prefix: str, sessions: Sessions
) -> None:
    declare(catch_up="all")
    nodes = [service(engine, prefix) for _ in range(4)]
    await at(nodes[0], NOON - timedelta(seconds=30))
    for minute in range(5):
        await asyncio.gather(*(at(node, NOON + timedelta(minutes=minute)) for node in nodes))
    assert await ticks(sessions) == ["12:00", "12:01", "12:02", "12:03", "12:04"]


async def test_the_next_leader_enqueues_missed_ticks(
    engine: AsyncEngine, prefix: str, sessions: Sessions
) -> None:
    declare(catch_up="all")
    await at(service(engine, prefix), NOON)
    await at(service(engine, prefix), NOON + timedelta(minutes=3))
    assert await ticks(sessions) == ["12:01", "12:02", "12:03"]


async def test_a_clock_set_back_repeats_no_tick(
    engine: AsyncEngine, prefix: str, sessions: Sessions
) -> None:
    declare()
    cron = service(engine, prefix)
    for minute in (-1, 0, -5, 0):
        await at(cron, NOON + timedelta(minutes=minute))
    assert await ticks(sessions) == ["12:00"]


async def test_a_clock_that_was_far_ahead_stops_no_entry(
    engine: AsyncEngine, prefix: str, sessions: Sessions
) -> None:
    declare()
    cron = service(engine, prefix)
    ahead = NOON + timedelta(days=40)
    await at(cron, ahead - timedelta(minutes=1))
    await at(cron, ahead)
    for minute in (-1, 0, 1, 1):
        await at(cron, NOON + timedelta(minutes=minute))
    assert await ticks(sessions) == ["12:00", "12:00", "12:01"]


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        ("30 2 * * *", ["00:30"]),
        ("*/30 2 * * *", ["00:00", "00:30", "01:00", "01:30"]),
        ("@hourly", ["23:00", "00:00", "01:00", "02:00"]),
    ],
)
async def test_each_tick_of_a_repeated_hour_is_enqueued_once(
    expr: str, expected: list[str], engine: AsyncEngine, prefix: str, sessions: Sessions
) -> None:
    declare(expr)
    start = datetime(2026, 10, 24, 22, 30, tzinfo=UTC)
    for step in range(30):
        # A new leader makes each pass. The first pass may come at any moment.
        wait = await at(service(engine, prefix), start + timedelta(minutes=7.25 * step))
        assert wait >= 1
    assert await ticks(sessions) == expected


async def test_only_the_leader_enqueues_ticks(
    engine: AsyncEngine, prefix: str, sessions: Sessions
) -> None:
    declare()
    assert await at(service(engine, prefix, leads=False), NOON) == math.inf


async def test_a_removed_entry_stops(engine: AsyncEngine, prefix: str, sessions: Sessions) -> None:
    declare()
    cron = service(engine, prefix)
    await at(cron, NOON - timedelta(minutes=1))
    registry._registrations.clear()
    await at(cron, NOON)
    assert await ticks(sessions) == []


async def test_reboot_runs_once_for_each_generation_of_nodes(
    engine: AsyncEngine, prefix: str, sessions: Sessions
) -> None:
    declare("@reboot")

    cron = service(engine, prefix)
    await started(sessions, "a", NOON)
    await at(cron, NOON + timedelta(minutes=1))
    await at(cron, NOON + timedelta(minutes=2))
    # Another leader among the same nodes does not count as a reboot.
    await at(service(engine, prefix), NOON + timedelta(minutes=3))
    assert await ticks(sessions) == ["12:01"]
    await started(sessions, "b", NOON + timedelta(minutes=4))
    await at(cron, NOON + timedelta(minutes=5))
    assert await ticks(sessions) == ["12:01", "12:05"]


async def test_a_node_that_joins_others_runs_no_reboot(
    engine: AsyncEngine, prefix: str, sessions: Sessions
) -> None:
    declare("@reboot")
    cron = service(engine, prefix)
    await started(sessions, "a", NOON)
    await at(cron, NOON + timedelta(minutes=1))
    async with sessions.begin() as session:
        later = NOON + timedelta(minutes=2)
        session.add(
            ProducerRow(
                uuid="0b3c5d8e-0000-4000-8000-000000000001",
                name="Oban",
                node="b",
                queue="cron",
                started_at=later,
                updated_at=later,
            )
        )
    await at(cron, NOON + timedelta(minutes=3))
    assert await ticks(sessions) == ["12:01"]


async def test_many_missed_ticks_are_enqueued_in_several_transactions(
    engine: AsyncEngine, prefix: str, sessions: Sessions, tune: Tune
) -> None:
    tune(cron_module, MOST_TICKS=2)
    declare(catch_up="all")
    cron = service(engine, prefix)
    await at(cron, NOON)
    late = NOON + timedelta(minutes=5)
    delays = [await at(cron, late) for _ in range(3)]
    assert delays[:2] == [0.0, 0.0]
    assert delays[2] > 0.0
    assert await ticks(sessions) == ["12:01", "12:02", "12:03", "12:04", "12:05"]


async def test_a_start_after_the_clock_was_set_back_runs_reboot(
    engine: AsyncEngine, prefix: str, sessions: Sessions
) -> None:
    declare("@reboot")
    cron = service(engine, prefix)
    await started(sessions, "a", NOON + timedelta(days=40))
    await at(cron, NOON + timedelta(days=40))
    # The same nodes with another clock do not count as a reboot.
    await at(cron, NOON)
    assert await ticks(sessions) == ["12:00"]
    await started(sessions, "b", NOON)
    await at(cron, NOON + timedelta(minutes=1))
    await at(cron, NOON + timedelta(minutes=2))
    assert await ticks(sessions) == ["12:00", "12:01"]


async def test_a_running_instance_runs_its_entries(start: StartOban) -> None:
    declare("@reboot")
    with hear(Oban, "job_stop") as stops:
        await start(queues={"cron": 1})
        (stop,) = await stops.wait()
    assert stop.job.meta["cron_expr"] == "@reboot"
