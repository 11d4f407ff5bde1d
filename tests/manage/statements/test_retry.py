"""Retry: jobs are available now, with an attempt left, as if they were new."""

from datetime import UTC, datetime
from typing import Any

import pytest

from oban_sqla import JobState
from oban_sqla.manage.retry import retry
from tests.conftest import Add
from tests.factories import JobFactory
from tests.statements.conftest import Find, Run, WithMeta

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
S = JobState
RETRIED = [S.SCHEDULED, S.RETRYABLE, S.SUSPENDED, S.COMPLETED, S.DISCARDED, S.CANCELLED]


async def retried(run: Run, *ids: int) -> list[tuple[int, str]]:
    return sorted((id, queue) for id, queue, _ in await run(retry(now=NOW), ids=list(ids)))


@pytest.mark.parametrize("state", RETRIED)
async def test_a_retried_job_is_available_now(
    add: Add, run: Run, find: Find, state: JobState
) -> None:
    errors = [{"attempt": 1, "at": "x", "error": "boom"}]
    given = JobFactory(state=state, attempt=2, max_attempts=5, queue="mails", errors=errors)
    given.completed_at = given.cancelled_at = given.discarded_at = NOW
    (id,) = await add(given)
    assert await retried(run, id) == [(id, "mails")]
    job = await find(id)
    assert (job.state, job.scheduled_at) == (S.AVAILABLE, NOW)
    assert (job.completed_at, job.cancelled_at, job.discarded_at) == (None, None, None)
    assert (job.attempt, job.max_attempts, job.errors) == (2, 5, errors)


@pytest.mark.parametrize("state", [S.AVAILABLE, S.EXECUTING])
async def test_available_and_running_jobs_are_unchanged(
    add: Add, run: Run, find: Find, state: JobState
) -> None:
    (id,) = await add(JobFactory(state=state, attempt=20))
    before = await find(id)
    assert await retried(run, id) == []
    job = await find(id)
    assert (job.state, job.scheduled_at, job.max_attempts) == (state, before.scheduled_at, 20)


@pytest.mark.parametrize(
    ("attempt", "most", "after"),
    [(20, 20, (20, 21)), (19, 20, (19, 20)), (0, 1, (0, 1)), (32767, 32767, (32766, 32767))],
)
async def test_a_retried_job_has_an_attempt_left(
    add: Add, run: Run, find: Find, attempt: int, most: int, after: tuple[int, int]
) -> None:
    (id,) = await add(JobFactory(state=S.DISCARDED, attempt=attempt, max_attempts=most))
    await retried(run, id)
    job = await find(id)
    assert (job.attempt, job.max_attempts) == after


@pytest.mark.parametrize(
    ("meta", "after"),
    [
        ({"mine": 1, "cancel_attempted_at": "2026-01-01T00:00:00"}, {"mine": 1}),
        ({"uniq_bmp": [1, 2]}, {"uniq_bmp": []}),
        (["cancel_attempted_at"], ["cancel_attempted_at"]),
        ("cancel_attempted_at", "cancel_attempted_at"),
        (None, None),
    ],
    ids=str,
)
async def test_the_mark_of_a_cancelled_job_is_removed(
    add: Add, run: Run, find: Find, with_meta: WithMeta, meta: Any, after: Any
) -> None:
    (id,) = await add(JobFactory(state=S.CANCELLED))
    await with_meta(id, meta)
    assert len(await retried(run, id)) == 1
    assert (await find(id)).meta == after


async def test_only_the_given_ids_are_retried(add: Add, run: Run, find: Find) -> None:
    ids = await add(*(JobFactory(completed=True) for _ in range(4)))
    assert await retried(run, ids[2], 123456789) == [(ids[2], "default")]
    assert [(await find(id)).state for id in ids].count(S.COMPLETED) == 3
