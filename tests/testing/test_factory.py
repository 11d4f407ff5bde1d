"""`JobFactory`, in sync and async sessions."""

from datetime import UTC, datetime

import pytest
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from oban_sqla import JobState
from oban_sqla.testing import all_enqueued
from oban_sqla.testing.factory import JobFactory
from tests.testing.workers import Plain

STATES = [pytest.param(state, id=state.value) for state in JobState]


@pytest.mark.parametrize("state", STATES)
def test_a_trait_sets_the_state_in_a_sync_session(sync_session: Session, state: JobState) -> None:
    sync_session.add(job := JobFactory(**{state.value: True}))
    sync_session.flush()
    sync_session.expire(job)
    assert job.state is state


@pytest.mark.parametrize("state", STATES)
async def test_a_trait_sets_the_state_in_an_async_session(
    session: AsyncSession, state: JobState
) -> None:
    session.add(job := JobFactory(**{state.value: True}))
    await session.flush()
    await session.refresh(job)
    assert job.state is state


async def test_inserted_at_can_be_set(session: AsyncSession) -> None:
    session.add(job := JobFactory(completed=True, inserted_at=datetime(2026, 1, 2)))
    await session.flush()
    await session.refresh(job)
    assert job.inserted_at == datetime(2026, 1, 2, tzinfo=UTC)


async def test_a_worker_may_be_given_as_its_class(session: AsyncSession) -> None:
    session.add_all([job := JobFactory(worker=Plain), JobFactory(worker=Plain, executing=True)])
    assert await all_enqueued(session, worker=Plain) == [job]
