"""Give back: the jobs that a producer will not finish."""

from datetime import UTC, datetime
from typing import Any

import pytest

from oban_sqla import Job, JobState
from oban_sqla.statements.give_back import give_back
from tests.conftest import Add
from tests.factories import JobFactory
from tests.statements.conftest import Find, Run, WithMeta

MINE = "0b3c5d8e-1111-4000-8000-000000000000"
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
S = JobState


def claimed(producer: str = MINE, **fields: Any) -> Job:
    return JobFactory(**{"executing": True, "attempted_by": ["n1", producer], **fields})


async def give(run: Run, prefix: str, *running: int) -> list[int]:
    rows = await run(
        give_back(prefix=prefix, now=NOW),
        queue_name="default",
        producer=MINE,
        running=list(running),
    )
    return sorted(row.id for row in rows)


async def test_claimed_jobs_get_their_attempts_back(
    add: Add, run: Run, find: Find, prefix: str
) -> None:
    (id,) = await add(claimed(attempt=3, errors=[{"error": "before"}]))
    scheduled_at = (await find(id)).scheduled_at
    assert await give(run, prefix) == [id]
    job = await find(id)
    assert (job.state, job.attempt, job.scheduled_at) == (S.AVAILABLE, 2, scheduled_at)
    assert job.errors == [{"error": "before"}]


async def test_no_other_job_is_given_back(add: Add, run: Run, find: Find, prefix: str) -> None:
    running, *others = await add(
        claimed(),
        claimed("0b3c5d8e-2222-4000-8000-000000000000"),
        claimed(queue="other"),
        claimed(state=S.COMPLETED),
        claimed(state=S.AVAILABLE),
        claimed(attempted_by=[]),
        claimed(attempted_by=[MINE, "n1"]),
    )
    before = [(await find(id)).state for id in others]
    assert await give(run, prefix, running) == []
    assert [(await find(id)).state for id in others] == before
    assert (await find(running)).state is S.EXECUTING


async def test_an_attempt_is_never_negative(add: Add, run: Run, find: Find, prefix: str) -> None:
    (id,) = await add(claimed(attempt=0))
    assert await give(run, prefix) == [id]
    assert (await find(id)).attempt == 0


async def test_a_job_cancelled_while_it_was_claimed_is_cancelled(
    add: Add, run: Run, find: Find, prefix: str
) -> None:
    (id,) = await add(claimed(attempt=3, meta={"cancel_attempted_at": "2026-11-23T11:00:00"}))
    assert await give(run, prefix) == [id]
    job = await find(id)
    assert (job.state, job.attempt, job.cancelled_at) == (S.CANCELLED, 3, NOW)


@pytest.mark.parametrize("meta", [["cancel_attempted_at"], "cancel_attempted_at", None], ids=str)
async def test_a_meta_that_is_no_object_is_no_mark(
    add: Add, run: Run, find: Find, prefix: str, with_meta: WithMeta, meta: Any
) -> None:
    (id,) = await add(claimed())
    await with_meta(id, meta)
    assert await give(run, prefix) == [id]
    assert (await find(id)).state is S.AVAILABLE
