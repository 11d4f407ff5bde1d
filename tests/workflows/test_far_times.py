"""Times that Python can't represent, which other programs may have stored, stop nothing."""

import pytest
from sqlalchemy import Text, cast, literal_column, select, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla import Job, Worker, Workflow
from oban_sqla.runtime.database import Database
from oban_sqla.workflows.workflow_queries import workflow_details, workflows
from tests.conftest import StartOban
from tests.workflows.conftest import Sessions
from tests.workflows.workers import Step

FAR = ["infinity", "-infinity", "20000-01-01", "0044-03-15 BC"]


class Chained(Worker, name="far_times.chained", chain=True):
    """A job of a chain."""

    async def process(self, job: Job) -> None: ...


def at(when: str) -> object:
    return literal_column(f"'{when}'::timestamp")


def two_steps() -> Workflow:
    flow = Workflow("far")
    flow.add("first", Step.new())
    flow.add("next", Step.new(), deps="first")
    return flow


@pytest.mark.parametrize("when", FAR)
async def test_workflows_are_listed_and_shown(
    engine: AsyncEngine, prefix: str, sessions: Sessions, when: str
) -> None:
    flow = two_steps()
    async with sessions.begin() as session:
        session.add(flow)
        await session.flush()
        await session.execute(
            update(Workflow).values(
                inserted_at=at(when), completed_at=at(when), started_at=at(when)
            )
        )
    database = Database(engine, prefix)
    (found,) = await workflows(database)
    assert (found.id, found.name, found.total) == (flow.id, "far", 2)
    assert found.inserted_at.year in (1, 9999)
    details = await workflow_details(database, flow.id)
    assert details is not None
    assert details.summary == found


@pytest.mark.parametrize("errors", ["7", "{}", '[{"error": [1]}, 7]', f"[{'9' * 5001}]"])
async def test_errors_of_any_form_are_shown(
    engine: AsyncEngine, prefix: str, sessions: Sessions, errors: str
) -> None:
    flow = two_steps()
    async with sessions.begin() as session:
        session.add(flow)
        await session.flush()
        await session.execute(update(Job).values(errors=cast(cast(errors, Text), JSONB)))
    details = await workflow_details(Database(engine, prefix), flow.id)
    assert details is not None
    assert [step.name for step in details.steps] == ["first", "next"]
    assert {step.error for step in details.steps} == {None}


async def state_of(sessions: Sessions, job: Job) -> str | None:
    """The state of a job whose times Python may not be able to read."""
    async with sessions() as session:
        return await session.scalar(select(cast(Job.state, Text)).where(Job.id == job.id))


async def spoil(sessions: Sessions, job: Job, when: str) -> None:
    async with sessions.begin() as session:
        await session.execute(update(Job).where(Job.id == job.id).values(scheduled_at=at(when)))


@pytest.mark.parametrize("when", ["infinity", "20000-01-01"])
async def test_steps_are_released(start: StartOban, sessions: Sessions, when: str) -> None:
    """The outcome of the dep, and other outcomes of the same write, are written."""
    flow, other = two_steps(), two_steps()
    async with sessions.begin() as session:
        session.add_all([flow, other])
    await spoil(sessions, flow.steps["next"], when)
    oban = await start(queues={"default": 10})
    assert (await oban.wait(other, timeout=20)).state == "completed"
    await oban.wait(flow.steps["first"], timeout=20)
    assert await state_of(sessions, flow.steps["next"]) == "scheduled"


@pytest.mark.parametrize("when", ["infinity", "20000-01-01"])
async def test_the_next_job_of_a_chain_is_released(
    start: StartOban, sessions: Sessions, when: str
) -> None:
    first, second = Chained.new(), Chained.new()
    async with sessions.begin() as session:
        session.add_all([first, second])
    await spoil(sessions, second, when)
    oban = await start(queues={"default": 10})
    await oban.wait(first, timeout=20)
    assert await state_of(sessions, second) == "scheduled"
