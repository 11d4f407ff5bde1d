"""Workers that note their order, and helpers for ended workflows."""

from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import selectinload

from oban_sqla import Job, Oban, Workflow
from tests.conftest import StartOban
from tests.listening import hear

Sessions = async_sessionmaker[AsyncSession]
Run = Callable[..., Awaitable[Workflow]]


@pytest.fixture
def run(start: StartOban, sessions: Sessions) -> Run:
    """Enqueue a workflow, run it, and return it when it has ended."""

    async def run(flow: Workflow, **options: object) -> Workflow:
        oban = await start(queues={"default": 10}, **options)
        with hear(Oban, "workflow_stop") as stops:
            await oban.enqueue(flow)
            await stops.until(lambda events: any(stop.id == flow.id for stop in events))
        return await loaded(sessions, flow.id)

    return run


async def loaded(sessions: Sessions, id: str) -> Workflow:
    """The current workflow and its jobs."""
    async with sessions() as session:
        query = select(Workflow).where(Workflow.id == id).options(selectinload(Workflow.jobs))
        return (await session.scalars(query)).one()


def states(flow: Workflow) -> dict[str, str]:
    """The state of each step."""
    return {name: job.state.value for name, job in flow.steps.items()}


async def jobs_of(sessions: Sessions) -> list[Job]:
    async with sessions() as session:
        return [*await session.scalars(select(Job).order_by(Job.id))]
