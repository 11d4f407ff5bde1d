"""Every end of an attempt frees its slot at once, and every start of an attempt counts."""

from typing import Any, ClassVar

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from oban_sqla import Cancel, Job, Limit, Rate, Record, Snooze, Worker
from oban_sqla.limits.rows import StartRow
from tests.conftest import Add, StartOban
from tests.limits.workers import Holding
from tests.runtime.conftest import until

Sessions = async_sessionmaker[AsyncSession]
NEVER: dict[str, Any] = {"poll_interval": 3600.0, "fallback_interval": 3600.0}


class Ending(Holding, name="ends.one", queue="ends", limit=Limit(1, by="key")):
    """A worker with one job of a key at once. The job says how its attempt ends."""

    async def outcome(self, job: Job) -> Any:
        match job.args.get("end"):
            case "cancel":
                return Cancel("no")
            case "snooze":
                return Snooze(3600)
            case "record":
                return Record(1)
            case "raise":
                raise ValueError("as the test wants")


class InSession(Worker, name="ends.session", queue="ends", limit=Limit(1, by="key")):
    """A worker that completes its jobs in its own transaction."""

    ran: ClassVar[list[int]] = []

    async def process(self, job: Job, session: AsyncSession) -> None:
        self.ran.append(job.id)


class Failing(Worker, name="ends.failing", queue="ends", rate=Rate(3, per=3600)):
    ran: ClassVar[list[int]] = []

    def backoff(self, job: Job) -> float:
        return 0.01

    async def process(self, job: Job) -> None:
        self.ran.append(job.attempt)
        raise ValueError("as the test wants")


ENDS = [("return", 5), ("cancel", 5), ("snooze", 5), ("record", 5), ("raise", 5), ("raise", 1)]


# The outbox writes an end alike for each kind of limit, so two ends suffice for two kinds.
@pytest.mark.parametrize(
    ("kind", "end", "attempts"),
    [
        *(("worker", *end) for end in ENDS),
        *((kind, *end) for kind in ("queue", "partition") for end in ENDS[1:3]),
    ],
)
async def test_an_attempt_that_ends_frees_its_slot(
    start: StartOban, add: Add, kind: str, end: str, attempts: int, expect_errors: None
) -> None:
    by_key = {"allowed": 1, "partition": {"fields": ["args"], "keys": ["key"]}}
    limits = {"worker": {}, "queue": {"global_limit": 1}, "partition": {"global_limit": by_key}}
    first, second = await add(
        Ending.new({"key": 1, "end": end}, max_attempts=attempts), Ending.new({"key": 1})
    )
    await start(queues={"ends": {"limit": 5, **limits[kind]}}, **NEVER)
    assert await Holding.begin(1) == [first]
    Holding.release(first)
    assert await Holding.begin(2) == [first, second]
    assert Holding.most == 1


async def test_a_worker_that_completes_in_its_transaction_frees_its_slot(
    start: StartOban, add: Add
) -> None:
    InSession.ran.clear()
    ids = await add(*(InSession.new({"key": 1}) for _ in range(4)))
    await start(queues={"ends": 5}, **NEVER)
    await until(lambda: len(InSession.ran) == 4)
    assert InSession.ran == ids


async def test_retries_count_for_a_rate(start: StartOban, sessions: Sessions, add: Add) -> None:
    async def counted() -> bool:
        async with sessions() as session:
            return await session.scalar(select(func.sum(StartRow.starts))) == 3

    Failing.ran.clear()
    await add(Failing.new(max_attempts=10), Failing.new(max_attempts=10))
    await start(queues={"ends": 5}, **NEVER)
    await until(counted)
    await until(lambda: len(Failing.ran) == 3)
    assert sorted(Failing.ran) == [1, 1, 2]
