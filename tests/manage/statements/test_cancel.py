"""Cancel: waiting jobs are cancelled, running jobs are marked, finished jobs stay."""

from datetime import UTC, datetime
from typing import Any

import pytest

from oban_sqla import Job, JobState
from oban_sqla.manage.cancel import cancel
from tests.conftest import Add
from tests.factories import JobFactory
from tests.statements.conftest import Find, Run, WithMeta

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
MARK = {"cancel_attempted_at": "2026-11-23T12:00:00"}
S = JobState


async def cancelled(run: Run, *ids: int) -> list[tuple[int, JobState]]:
    return sorted((id, state) for id, state, _ in await run(cancel(now=NOW), ids=list(ids)))


@pytest.mark.parametrize("state", [S.AVAILABLE, S.SCHEDULED, S.RETRYABLE, S.SUSPENDED])
async def test_waiting_jobs_are_cancelled(add: Add, run: Run, find: Find, state: JobState) -> None:
    (id,) = await add(JobFactory(state=state, attempt=2, meta={"mine": 1}))
    before = await find(id)
    assert await cancelled(run, id) == [(id, S.CANCELLED)]
    job = await find(id)
    assert (job.state, job.cancelled_at, job.meta) == (S.CANCELLED, NOW, {"mine": 1, **MARK})
    assert (job.attempt, job.errors, job.scheduled_at) == (2, [], before.scheduled_at)


async def test_running_jobs_are_marked_and_go_on(add: Add, run: Run, find: Find) -> None:
    (id,) = await add(JobFactory(executing=True, meta={"mine": 1}))
    assert await cancelled(run, id) == [(id, S.EXECUTING)]
    job = await find(id)
    assert (job.state, job.cancelled_at, job.meta) == (S.EXECUTING, None, {"mine": 1, **MARK})


@pytest.mark.parametrize("state", [S.COMPLETED, S.DISCARDED, S.CANCELLED])
async def test_finished_jobs_are_unchanged(add: Add, run: Run, find: Find, state: JobState) -> None:
    (id,) = await add(JobFactory(state=state))
    assert await cancelled(run, id) == []
    job = await find(id)
    assert (job.state, job.cancelled_at, job.meta) == (state, None, {})


async def test_only_the_given_ids_are_cancelled(add: Add, run: Run, find: Find) -> None:
    ids = await add(*(JobFactory() for _ in range(5)))
    assert await cancelled(run, ids[0], ids[3], 123456789) == [
        (ids[0], S.CANCELLED),
        (ids[3], S.CANCELLED),
    ]
    assert [(await find(id)).state for id in ids].count(S.AVAILABLE) == 3
    assert await cancelled(run) == []


@pytest.mark.parametrize(
    ("meta", "after"),
    [
        ([1, 2], {"meta": [1, 2], **MARK}),
        ("text", {"meta": "text", **MARK}),
        (None, {"meta": None, **MARK}),
        (7, {"meta": 7, **MARK}),
    ],
    ids=str,
)
@pytest.mark.parametrize("executing", [True, False])
async def test_a_meta_that_is_no_object_is_kept_inside_one(
    add: Add, run: Run, find: Find, with_meta: WithMeta, executing: bool, meta: Any, after: Any
) -> None:
    (id,) = await add(JobFactory(executing=executing))
    await with_meta(id, meta)
    assert len(await cancelled(run, id)) == 1
    job: Job = await find(id)
    assert job.meta == after
