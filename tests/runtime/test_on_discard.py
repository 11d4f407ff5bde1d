"""`on_discard`: one job follows each discarded job, whichever code discards it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar
from uuid import uuid4

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from oban_sqla import Job, JobState, Oban, RetryAfter, Worker
from oban_sqla import job as job_function
from oban_sqla.runtime.database import Database
from oban_sqla.testing import drain_queue
from tests.factories import JobFactory
from tests.listening import hear
from tests.runtime.conftest import until
from tests.runtime.test_lifeline import Made, producer

Sessions = async_sessionmaker[AsyncSession]

S = JobState
NEVER: dict[str, Any] = {
    "poll_interval": 3600.0,
    "fallback_interval": 3600.0,
    "leadership": False,
}


class Told(Worker, name="on_discard.told", queue="alerts", tags=["alert"]):
    """A worker that notes the discarded job."""

    heard: ClassVar[list[tuple[Any, JobState, str]]] = []

    async def process(self, job: Job, session: AsyncSession) -> None:
        discarded = await session.get_one(Job, job.args["job_id"])
        error = discarded.errors[-1]["error"].splitlines()[-1]
        self.heard.append((discarded.args, discarded.state, error))


class Fails(Worker, name="on_discard.fails", max_attempts=1, on_discard=Told):
    async def process(self, job: Job) -> None:
        raise ValueError("boom")


class FailsWithSession(
    Worker, name="on_discard.session", discard_on=ValueError, on_discard=Told
):  # fmt: skip
    async def process(self, job: Job, session: AsyncSession) -> None:
        session.add(JobFactory(queue="nowhere"))
        await session.flush()
        raise ValueError("boom")


@pytest.fixture(autouse=True)
def heard() -> list[Any]:
    Told.heard.clear()
    return Told.heard


async def add(sessions: Sessions, *rows: Any) -> None:
    async with sessions.begin() as session:
        session.add_all(rows)


@asynccontextmanager
async def forbidden(sessions: Sessions, prefix: str) -> AsyncIterator[None]:
    """Add a constraint to the table that refuses the following jobs."""
    table = f'ALTER TABLE "{prefix}".oban_jobs'
    async with sessions.begin() as session:
        check = "ADD CONSTRAINT no_alert CHECK (queue <> 'alerts')"
        await session.execute(text(f"{table} {check}"))
    yield
    async with sessions.begin() as session:
        await session.execute(text(f"{table} DROP CONSTRAINT no_alert"))


async def followers(sessions: Sessions) -> list[int]:
    """The ids of the discarded jobs that have a following job."""
    async with sessions() as session:
        args = await session.scalars(select(Job.args).where(Job.worker == Told.__oban__.name))
        return sorted(each["job_id"] for each in args)


@pytest.mark.parametrize("worker", [Fails, FailsWithSession])
async def test_the_last_failure_is_followed_once_and_at_once(
    sessions: Sessions, heard: list[Any], expect_errors: None, worker: type[Worker]
) -> None:
    oban = Oban(sessions, queues={"default": 2, "alerts": 1}, **NEVER)
    with hear(oban, "job_stop") as stops:
        async with oban:
            await add(sessions, worker.new({"a": 1}))
            await stops.wait()
    assert heard == [({"a": 1}, S.DISCARDED, "ValueError: boom")]
    async with sessions() as session:
        jobs = (await session.scalars(select(Job).order_by(Job.id))).all()
    assert [(job.state, job.tags) for job in jobs] == [(S.DISCARDED, []), (S.COMPLETED, ["alert"])]


async def test_attempts_before_the_last_are_not_followed(
    sessions: Sessions, expect_errors: None
) -> None:
    @job_function(name="on_discard.twice", max_attempts=2, on_discard=Told)
    def twice() -> None:
        raise RetryAfter(0)

    async with Oban(sessions, queues={"default": 2}, poll_interval=0.01, leadership=False) as oban:
        done = await oban.wait(await oban.enqueue(twice.new()), timeout=30)
    assert (done.state, done.attempt) == (S.DISCARDED, 2)
    assert await followers(sessions) == [done.id]


async def test_the_rescue_follows_a_job_whose_worker_the_leader_does_not_know(
    engine: AsyncEngine, prefix: str, sessions: Sessions
) -> None:
    living, dead = producer(1), uuid4()
    meta = Fails.new().meta
    by = ["n", str(dead), "oban_sqla"]
    orphans = [
        JobFactory(
            executing=True, worker="nobody.knows", attempt=n, max_attempts=2, meta=meta,
            attempted_by=by,
        )
        for n in (1, 2)
    ]  # fmt: skip
    await add(sessions, living, *orphans)
    lifelines = [Made(Database(engine, prefix)) for _ in range(2)]
    await asyncio.gather(*(lifeline.run_once() for lifeline in lifelines))
    await lifelines[0].run_once()
    assert await followers(sessions) == [orphans[1].id]


async def test_a_refused_follower_stops_no_other_rescue(
    engine: AsyncEngine, prefix: str, sessions: Sessions
) -> None:
    def orphan(**fields: Any) -> Job:
        by = ["n", str(uuid4()), "oban_sqla"]
        return JobFactory(executing=True, attempted_by=by, max_attempts=2, **fields)

    meta = Fails.new().meta
    refused = orphan(attempt=2, meta=meta)
    others = [orphan(attempt=1, meta=meta), orphan(attempt=2), orphan(attempt=1)]
    await add(sessions, producer(1), refused, *others)
    async with forbidden(sessions, prefix):
        lifeline = Made(Database(engine, prefix))
        with pytest.raises(IntegrityError, match="no_alert"):
            await lifeline.run_once()
        (stop,) = lifeline.passes
        assert stop.rescued == (others[0].id, others[2].id)
        assert stop.discarded == (others[1].id,)
    await lifeline.run_once()
    assert lifeline.passes[-1].discarded == (refused.id,)
    assert await followers(sessions) == [refused.id]


async def test_a_claimed_job_without_an_attempt_left_is_followed(
    sessions: Sessions, heard: list[Any], expect_errors: None
) -> None:
    spent = JobFactory(attempt=20, queue="default", args={}, meta=Fails.new().meta)
    await add(sessions, spent)
    oban = Oban(sessions, queues={"default": 1, "alerts": 1}, **NEVER)
    with hear(oban, "job_stop") as stops:
        async with oban:
            await stops.wait()
    why = "the job was available with no attempt left, so it is discarded"
    assert heard == [({}, S.DISCARDED, why)]


async def test_a_job_that_can_not_be_read_is_followed(
    sessions: Sessions, prefix: str, expect_errors: None
) -> None:
    await add(sessions, Fails.new())
    async with sessions.begin() as session:
        huge = f'{{"n": {"9" * 5001}}}'
        await session.execute(
            text(f'UPDATE "{prefix}".oban_jobs SET args = CAST(:huge AS jsonb)'), {"huge": huge}
        )

    async def is_followed() -> bool:
        return len(await followers(sessions)) == 1

    async with Oban(sessions, queues={"default": 1}, **NEVER):
        await until(is_followed)


async def test_a_follower_may_be_followed(sessions: Sessions, expect_errors: None) -> None:
    @job_function(name="on_discard.first", max_attempts=1, on_discard=Told)
    def first(job_id: int) -> None:
        raise ValueError("in vain")

    @job_function(name="on_discard.zeroth", max_attempts=1, on_discard=first)
    def zeroth() -> None:
        raise ValueError("boom")

    async with sessions() as session:
        await zeroth.enqueue(conn=session)
        counts = await drain_queue(session, with_safety=True)
    assert (counts["discarded"], counts["completed"]) == (2, 1)
    assert [args for args, _, _ in Told.heard] == [{"job_id": zeroth_id(Told.heard)}]


def zeroth_id(heard: list[Any]) -> int:
    return int(heard[0][0]["job_id"])


async def test_a_discard_that_the_database_refuses_is_not_half_written(
    sessions: Sessions, prefix: str, expect_errors: None
) -> None:
    """The job stays executing until its following job can be inserted."""
    oban = Oban(sessions, queues={"default": 1}, **NEVER)
    with hear(oban, "outcome_delayed") as delayed:
        async with oban, forbidden(sessions, prefix):
            await add(sessions, Fails.new())
            await delayed.wait()
            async with sessions() as session:
                assert (await session.scalars(select(Job.state))).all() == [S.EXECUTING]
        # The last try of a stop.
    assert len(await followers(sessions)) == 1
