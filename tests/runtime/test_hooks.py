"""`before` and `after` run around `process`, in its transaction, in each attempt."""

import asyncio
from contextvars import ContextVar
from typing import Any, ClassVar

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from oban_sqla import Cancel, Job, JobState, Oban, Record, Snooze, Worker, job
from oban_sqla.testing import drain_queue
from tests.attempts import behaviours, execute
from tests.claimed import claimed
from tests.factories import JobFactory

Sessions = async_sessionmaker[AsyncSession]

S = JobState
tenant: ContextVar[str] = ContextVar("tenant")


class Steps:
    """The steps that ran, and the action of each step, by name."""

    ran: ClassVar[list[Any]] = []

    def step(self, name: str, *about: Any) -> Any:
        self.ran.append((name, *about))
        return behaviours[name]() if name in behaviours else None


class Async(Steps, Worker, name="hooks.async"):
    async def before(self, job: Job) -> Any:
        tenant.set("shop")
        return self.step("before")

    async def process(self, job: Job) -> Any:
        assert tenant.get() == "shop"
        return self.step("process")

    async def after(self, job: Job, result: Any) -> Any:
        return self.step("after", result)


class Plain(Steps, Worker, name="hooks.plain"):
    def before(self, job: Job) -> Any:
        tenant.set("shop")
        return self.step("before")

    def process(self, job: Job) -> Any:
        assert tenant.get() == "shop"
        return self.step("process")

    def after(self, job: Job, result: Any) -> Any:
        return self.step("after", result)


class Mixed(Steps, Worker, name="hooks.mixed"):
    """A worker with plain hooks around an async `process`."""

    def before(self, job: Job) -> Any:
        tenant.set("shop")
        return self.step("before")

    async def process(self, job: Job) -> Any:
        await asyncio.sleep(0)
        return self.step("process")

    def after(self, job: Job, result: Any) -> Any:
        return self.step("after", result)


@pytest.fixture(autouse=True)
def nothing_special() -> None:
    behaviours.clear()
    Steps.ran.clear()


def fail() -> None:
    raise ValueError("boom")


async def outcome(kind: type[Worker]) -> Any:
    return await execute(claimed(kind.new().worker))


kinds = pytest.mark.parametrize("kind", [Async, Plain, Mixed])


@kinds
class TestSteps:
    async def test_after_gets_the_result_of_process(self, kind: type[Worker]) -> None:
        behaviours["process"] = lambda: Record(7)
        behaviours["after"] = lambda: Cancel("is no outcome")
        ack = await outcome(kind)
        assert (ack.state, ack.meta["return"]) == (S.COMPLETED, 7)
        assert Steps.ran == [("before",), ("process",), ("after", Record(7))]

    async def test_a_result_of_before_replaces_process(self, kind: type[Worker]) -> None:
        behaviours["before"] = lambda: Snooze(60)
        ack = await outcome(kind)
        assert (ack.state, ack.delay, Steps.ran) == (S.SCHEDULED, 60, [("before",)])

    @pytest.mark.parametrize("step", ["before", "process", "after"])
    async def test_a_hook_that_raises_fails_the_attempt(
        self, kind: type[Worker], step: str
    ) -> None:
        behaviours[step] = fail
        ack = await outcome(kind)
        assert (ack.state, "ValueError: boom" in ack.error) == (S.RETRYABLE, True)
        assert Steps.ran[-1][0] == step


async def test_a_plain_function_that_returns_a_coroutine_ends_before_after() -> None:
    async def later() -> str:
        return "later"

    behaviours["process"] = later
    assert (await outcome(Plain)).state is S.COMPLETED
    assert Steps.ran[-1] == ("after", "later")


@job(name="hooks.function", session=True)
async def rename(session: AsyncSession, worker: str) -> str:
    return worker


@rename.before
async def note(job: Job, session: AsyncSession) -> None:
    session.add(JobFactory(worker=job.args["worker"], queue="noted"))


@rename.after
async def note_too(job: Job, session: AsyncSession, result: str) -> None:
    noted = select(func.count()).where(Job.queue == "noted")
    assert await session.scalar(noted) == 1
    session.add(JobFactory(worker=result, queue="noted"))
    if result == "w.Wrong":
        fail()


class PlainInSession(Worker, name="hooks.plain_session"):
    def process(self, job: Job, session: Session) -> str:
        return str(job.args["worker"])

    def before(self, job: Job, session: Session) -> None:
        session.add(JobFactory(worker=job.args["worker"], queue="noted"))

    def after(self, job: Job, result: str, session: Session) -> None:
        session.add(JobFactory(worker=result, queue="noted"))
        if result == "w.Wrong":
            fail()


async def noted(sessions: Sessions) -> list[str]:
    async with sessions() as session:
        return list(await session.scalars(select(Job.worker).where(Job.queue == "noted")))


def of_both(worker: str) -> list[Job]:
    return [rename.new(worker), PlainInSession.new({"worker": worker})]


@pytest.mark.parametrize("n", [0, 1])
async def test_hooks_are_in_the_transaction_of_process(
    sessions: Sessions, expect_errors: None, n: int
) -> None:
    async with Oban(sessions, queues={"default": 1}, leadership=False) as oban:
        wrong, right = await oban.enqueue_many(of_both("w.Wrong")[n], of_both("w.Right")[n])
        done = await oban.wait(right, timeout=30)
    assert done.state is S.COMPLETED
    async with sessions() as session:
        assert (await session.get_one(Job, wrong.id)).state is S.RETRYABLE
    assert await noted(sessions) == ["w.Right", "w.Right"]


async def test_drained_jobs_run_hooks(sessions: Sessions) -> None:
    async with sessions() as session:
        await rename.enqueue("w.Drained", conn=session)
        assert (await drain_queue(session, "default"))["completed"] == 1
        found = await session.scalars(select(Job.worker).where(Job.queue == "noted"))
        assert list(found) == ["w.Drained"] * 2
