"""The testing helpers run workflows and chains to their end, in the transaction of a test."""

from datetime import timedelta

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, selectinload, sessionmaker

from oban_sqla import Batch, Job, Record, Worker, Workflow, current_workflow, job
from oban_sqla.testing import drain_queue, inline
from tests.workflows.conftest import Sessions
from tests.workflows.workers import InTransaction, Step, ran


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


class Number(Worker, name="draining.number"):
    """A worker that adds its number to those of the steps before."""

    async def process(self, job: Job) -> Record:
        return Record(sum((await job.results()).values(), job.args["n"]))


class Chained(Worker, name="draining.chained", chain=True):
    """A worker that notes its number."""

    async def process(self, job: Job) -> None:
        ran.append(str(job.args["n"]))


async def test_a_workflow_is_drained(sessions: Sessions) -> None:
    flow = Workflow()
    flow.add("first", Step.new())
    flow.add("next", InTransaction.new(), deps="first")
    flow.add("two", Number.new({"n": 2}), deps="next")
    flow.add("sum", Number.new({"n": 3}), deps="two")
    flow.add_last("last", Step.new())
    async with sessions() as session:
        session.add(flow)
        assert (await drain_queue(session))["completed"] == 5
        found = (await session.scalars(select(Workflow))).one()
        assert (found.state, found.progress) == ("completed", (5, 5))
        jobs = {job.meta["name"]: job for job in await session.scalars(select(Job))}
        assert jobs["sum"].recorded == 5
        await session.rollback()
    assert ran == ["first", "next", "last"]


async def test_a_failure_is_drained(sessions: Sessions) -> None:
    flow = Workflow()
    flow.add("bad", Step.new({"fail": True}))
    flow.add("next", Step.new(), deps="bad")
    async with sessions() as session:
        session.add(flow)
        await drain_queue(session, with_safety=True)
        states = {job.meta["name"]: job.state.value for job in await session.scalars(select(Job))}
        await session.rollback()
    assert states == {"bad": "discarded", "next": "cancelled"}


async def test_a_chain_is_drained(sessions: Sessions) -> None:
    async with sessions() as session:
        session.add_all([Chained.new({"n": n}) for n in range(3)])
        assert (await drain_queue(session))["completed"] == 3
        await session.rollback()
    assert ran == ["0", "1", "2"]


class Split(Worker, name="draining.split"):
    """Adds two steps and a workflow, in its own session."""

    async def process(self, job: Job, session: AsyncSession) -> None:
        flow, inner = current_workflow(), Workflow("inner")
        parts = [flow.add(f"part-{n}", Step.new()) for n in range(2)]
        inner.add("within", Step.new())
        flow.add_workflow("inner", inner, deps=parts)
        flow.add("end", Step.new(), deps="inner")
        session.add(flow)


@job(name="draining.plain_split", queue="default", session=True)
def plain_split(session: Session) -> None:
    """The same in a thread."""
    flow = current_workflow()
    flow.add("part-0", Step.new())
    session.add(flow)


async def test_steps_that_are_added_are_drained(sessions: Sessions) -> None:
    flow = Workflow()
    flow.add("split", Split.new())
    flow.add("after", Step.new(), deps="split")
    flow.add_last("last", Step.new())
    async with sessions() as session:
        session.add(flow)
        assert (await drain_queue(session))["completed"] == 7
        query = select(Workflow).where(Workflow.id == flow.id).options(selectinload(Workflow.jobs))
        found = (await session.scalars(query)).one()
        assert (found.state, found.progress) == ("completed", (7, 7))
        await session.rollback()
    assert sorted(ran[:4]) == ["after", "part-0", "part-1", "within"]
    assert ran[4:] == ["end", "last"]


def test_a_sync_session_is_drained(session_factory: sessionmaker[Session]) -> None:
    flow = Workflow()
    flow.add("split", plain_split.new())
    flow.add_last("last", Step.new())
    with session_factory() as session:
        session.add(flow)
        assert drain_queue(session)["completed"] == 3
        session.rollback()
    assert ran == ["part-0", "last"]


async def test_a_batch_is_drained(sessions: Sessions) -> None:
    batch = Batch(
        [Step.new({"fail": n == 1}) for n in range(3)],
        on_completed=Step.new(),
        on_exhausted=Step.new(),
        on_discarded=Step.new(),
    )
    async with sessions() as session:
        session.add(batch)
        counts = await drain_queue(session, with_safety=True)
        assert (counts["completed"], counts["discarded"]) == (4, 1)
        await session.rollback()
    assert sorted(ran) == ["1", "2", "3", "on_discarded", "on_exhausted"]


async def test_delays_are_drained_on_request(sessions: Sessions) -> None:
    flow = Workflow()
    flow.add("first", Step.new())
    flow.add("later", Step.new(), deps="first", after=timedelta(days=1))
    async with sessions() as session:
        session.add(flow)
        assert (await drain_queue(session))["completed"] == 1
        assert (await drain_queue(session, with_scheduled=True))["completed"] == 1
        await session.rollback()
    assert ran == ["first", "later"]


async def test_a_workflow_runs_inline(sessions: Sessions) -> None:
    """In the flush that inserts it, whatever the order in which its steps were added."""
    flow = Workflow()
    flow.add_last("last", Step.new())
    flow.add("sum", Number.new({"n": 3}), deps="two")
    flow.add("next", Step.new(), deps="sum")
    flow.add("two", Number.new({"n": 2}))
    flow.add("later", Step.new(), deps="two", after=60)
    async with sessions() as session:
        with inline():
            session.add(flow)
            await session.flush()
        assert ran == ["next"]
        states = {job.meta["name"]: job.state.value for job in await session.scalars(select(Job))}
        assert states == {
            "two": "completed",
            "sum": "completed",
            "next": "completed",
            "later": "scheduled",
            "last": "suspended",
        }
        found = await session.get_one(Workflow, flow.id)
        assert found.progress == (3, 5)
        await drain_queue(session, with_scheduled=True)
        assert ran == ["next", "later", "last"]
        await session.rollback()
        assert await session.scalar(select(func.count()).select_from(Job)) == 0


async def test_steps_that_are_added_run_inline(sessions: Sessions) -> None:
    flow = Workflow()
    flow.add("split", Split.new())
    flow.add_last("last", Step.new())
    async with sessions() as session:
        with inline():
            session.add(flow)
            await session.commit()
        found = await session.get_one(Workflow, flow.id)
        await session.refresh(found)
        assert (found.state, found.progress) == ("completed", (6, 6))
    assert ran == ["part-0", "part-1", "within", "end", "last"]


async def test_a_chain_runs_inline(sessions: Sessions) -> None:
    async with sessions() as session:
        with inline():
            session.add_all([Chained.new({"n": n}) for n in range(3)])
            await session.flush()
        await session.rollback()
    assert ran == ["0", "1", "2"]
