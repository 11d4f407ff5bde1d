"""Jobs that another transaction is changing: the method waits for them, without deadlocks."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from oban_sqla import Job, JobState, Oban
from oban_sqla.statements.claim import FRONT, claim_of_queue
from tests.blocking import pid_of, until_blocked
from tests.conftest import Add
from tests.factories import JobFactory
from tests.manage.conftest import Find, States

Sessions = async_sessionmaker[AsyncSession]

S = JobState
CLAIM = {"queue_name": "default", "limit": 10, "node_name": "n1", "producer": "p1", **FRONT}

Verb = Callable[[Oban, Any, Any], Awaitable[Any]]
VERBS: dict[str, Verb] = {
    "cancel": lambda oban, which, conn: oban.cancel_jobs(which, conn=conn),
    "retry": lambda oban, which, conn: oban.retry_jobs(which, conn=conn),
    "delete": lambda oban, which, conn: oban.delete_jobs(which, conn=conn),
    "update": lambda oban, which, conn: oban.update_jobs(which, {"priority": 1}, conn=conn),
}
verbs = pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)


@asynccontextmanager
async def waiting(engine: AsyncEngine, verb: Verb, which: Any) -> AsyncIterator[asyncio.Task[Any]]:
    """A call that manages jobs, and waits for a lock."""
    async with AsyncSession(engine, expire_on_commit=False) as session:
        pid = await pid_of(session)

        async def manage() -> Any:
            result = await verb(Oban(engine), which, session)
            await session.commit()
            return result

        task = asyncio.create_task(manage())
        await until_blocked(engine, pid)
        yield task
        await task


class TestClaimedMeanwhile:
    async def test_a_job_that_has_started_is_told_to_stop(
        self, engine: AsyncEngine, sessions: Sessions, add: Add, find: Find
    ) -> None:
        ids = await add(JobFactory(), JobFactory())
        async with sessions() as producer:
            await producer.execute(claim_of_queue(), CLAIM)
            async with waiting(engine, VERBS["cancel"], ids) as cancelling:
                await producer.commit()
                assert await cancelling == 2
        for job in await find():
            assert (job.state, job.attempt, job.cancelled_at) == (S.EXECUTING, 1, None)
            assert "cancel_attempted_at" in job.meta

    async def test_a_job_that_has_started_is_not_deleted(
        self, engine: AsyncEngine, sessions: Sessions, add: Add, states: States
    ) -> None:
        ids = await add(JobFactory())
        async with sessions() as producer:
            await producer.execute(claim_of_queue(), CLAIM)
            async with waiting(engine, VERBS["delete"], ids) as deleting:
                await producer.commit()
                assert await deleting == 0
        assert await states() == [S.EXECUTING]

    async def test_a_claim_skips_a_job_that_is_being_cancelled(
        self, oban: Oban, sessions: Sessions, add: Add, states: States
    ) -> None:
        first, _ = await add(JobFactory(), JobFactory())
        async with sessions() as cancelling, sessions.begin() as producer:
            await oban.cancel_jobs(first, conn=cancelling)
            await producer.execute(claim_of_queue(), CLAIM)
            await cancelling.commit()
        assert await states() == [S.CANCELLED, S.EXECUTING]


@verbs
async def test_jobs_that_a_select_does_not_find_any_more_are_skipped(
    engine: AsyncEngine, sessions: Sessions, add: Add, find: Find, verb: Verb
) -> None:
    """The SELECT found the job before another transaction changed it."""
    await add(JobFactory(state=S.RETRYABLE, queue="old"), JobFactory(state=S.RETRYABLE))
    async with sessions() as other:
        await other.execute(update(Job).where(Job.queue == "old").values(queue="new"))
        async with waiting(engine, verb, select(Job).where(Job.queue == "old")) as managing:
            await other.commit()
            assert await managing in (0, [])
    assert [(job.state, job.priority) for job in await find()] == [(S.RETRYABLE, 0)] * 2


@verbs
@pytest.mark.parametrize("selected", [True, False])
async def test_locks_are_taken_in_the_order_of_the_ids(
    engine: AsyncEngine, sessions: Sessions, add: Add, verb: Verb, selected: bool
) -> None:
    """A transaction that waits for the first job holds no lock on the others, whatever the given
    order.
    """
    first, *others = await add(*(JobFactory(state=S.RETRYABLE, priority=9 - n) for n in range(5)))
    chosen = select(Job).order_by(Job.priority).limit(5)
    which = chosen if selected else [*reversed(others), first]
    async with sessions() as holder:
        lock = select(Job.id).with_for_update(nowait=True)
        await holder.execute(lock.where(Job.id == first))
        async with waiting(engine, verb, which) as managing:
            free = await holder.scalars(lock.where(Job.id.in_(others)))
            assert sorted(free) == others
            await holder.rollback()
            result = await managing
            assert (len(result) if isinstance(result, list) else result) == 5


async def test_concurrent_calls_do_not_deadlock(oban: Oban, add: Add, states: States) -> None:
    ids = await add(*(JobFactory() for _ in range(40)))
    chosen = select(Job).order_by(Job.id.desc())
    async with asyncio.timeout(60):
        await asyncio.gather(
            *(oban.cancel_jobs(ids) for _ in range(3)),
            *(oban.retry_jobs(chosen) for _ in range(3)),
            *(oban.update_jobs(ids[::-1], {"priority": n}) for n in range(3)),
        )
    assert set(await states()) <= {S.AVAILABLE, S.CANCELLED}
