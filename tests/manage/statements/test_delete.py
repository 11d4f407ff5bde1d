"""Delete: jobs in any state except `executing`."""

import pytest
from sqlalchemy import select

from oban_sqla import Job, JobState
from oban_sqla.manage.delete import delete
from tests.conftest import Add
from tests.factories import JobFactory
from tests.statements.conftest import Run


@pytest.mark.parametrize("state", JobState)
async def test_all_but_running_jobs_are_deleted(add: Add, run: Run, state: JobState) -> None:
    id, other = await add(JobFactory(state=state), JobFactory())
    runs = state is JobState.EXECUTING
    assert [row.id for row in await run(delete(), ids=[id, 123456789])] == [id][runs:]
    left = {row.id for row in await run(select(Job.id))}
    assert left == ({id, other} if runs else {other})
