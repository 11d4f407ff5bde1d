"""A process whose local time is not UTC reads and writes no instant as local time."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from oban_sqla import Job, Oban
from tests.conftest import Add, StartOban
from tests.listening import hear
from tests.runtime.workers import Quick

NAIVE = datetime(2026, 11, 1, 12)
AT = NAIVE.replace(tzinfo=UTC)


@pytest.fixture(autouse=True)
def new_york() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "America/New_York")
        time.tzset()
        yield
    time.tzset()


def is_now(instant: datetime | None) -> bool:
    return instant is not None and abs(datetime.now(UTC) - instant) < timedelta(minutes=10)


async def test_a_naive_datetime_is_utc(
    add: Add, start: StartOban, sessions: async_sessionmaker[AsyncSession]
) -> None:
    (id,) = await add(job := Quick.new(scheduled_at=NAIVE))
    assert job.scheduled_at == AT
    with hear(Oban, "job_stop") as stops, hear(Oban, "ack_stop") as acks:
        await start(queues={"default": 1})
        (stop,) = await stops.wait()
        await acks.counted(1)
    assert stop.job.scheduled_at == AT
    assert is_now(stop.job.attempted_at)
    async with sessions() as session:
        stored = await session.get_one(Job, id)
    assert stored.scheduled_at == AT
    assert is_now(stored.inserted_at)
    assert is_now(stored.completed_at)
