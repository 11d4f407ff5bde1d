"""The insert fills in the values that new jobs do not send."""

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from oban_sqla import Job, JobState

DEFAULTS = (JobState.AVAILABLE, "default", 20, 0, {}, {}, [])


# Up to ten jobs are inserted by a statement of their own.
@pytest.mark.parametrize("count", [1, 11])
async def test_a_job_has_the_default_values(
    count: int, sessions: async_sessionmaker[AsyncSession]
) -> None:
    async with sessions.begin() as session:
        session.add_all([Job("insert.plain") for _ in range(count)])
    filled = (Job.state, Job.queue, Job.max_attempts, Job.priority, Job.args, Job.meta, Job.tags)
    async with sessions() as session:
        rows = await session.execute(select(*filled))
        assert [tuple(row) for row in rows] == [DEFAULTS] * count
