"""Acknowledge: the changes by each outcome, and outcomes that don't apply."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from oban_sqla import Job, JobState
from oban_sqla.statements import acknowledge as statements
from oban_sqla.statements.acknowledge import Ack, outcomes
from tests.conftest import Add
from tests.factories import JobFactory
from tests.statements.conftest import Find, Run, WithMeta

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
BEGUN = NOW - timedelta(seconds=3)
S = JobState


async def acknowledge(run: Run, *acks: Ack) -> list[int]:
    statement = statements.acknowledge(now=NOW)
    return [row.id for row in await run(statement, **outcomes(acks))]


def executing(**fields: Any) -> Job:
    return JobFactory(executing=True, attempt=2, attempted_at=BEGUN, **fields)


async def test_a_job_is_completed(add: Add, run: Run, find: Find) -> None:
    (id,) = await add(executing(meta={"mine": 1}))
    before = await find(id)
    assert await acknowledge(run, Ack(id, 2, BEGUN, S.COMPLETED)) == [id]
    job = await find(id)
    assert (job.state, job.attempt, job.completed_at) == (S.COMPLETED, 2, NOW)
    assert (job.discarded_at, job.cancelled_at, job.errors) == (None, None, [])
    assert (job.scheduled_at, job.meta) == (before.scheduled_at, {"mine": 1})
    assert job.attempted_by == before.attempted_by


async def test_a_completed_job_has_its_recorded_value(add: Add, run: Run, find: Find) -> None:
    (id,) = await add(executing(meta={"mine": 1, "return": "old"}))
    meta = {"recorded": "json", "return": {"text": "ü", "none": None}}
    await acknowledge(run, Ack(id, 2, BEGUN, S.COMPLETED, meta=meta))
    job = await find(id)
    assert job.meta == {"mine": 1, **meta}
    assert job.recorded == {"text": "ü", "none": None}


async def test_a_failed_job_is_retryable_with_its_error(add: Add, run: Run, find: Find) -> None:
    (id,) = await add(executing(errors=[{"attempt": 1, "at": "x", "error": "first"}]))
    await acknowledge(run, Ack(id, 2, BEGUN, S.RETRYABLE, delay=17.5, error="zweiter 'Ü'\n"))
    job = await find(id)
    assert (job.state, job.attempt) == (S.RETRYABLE, 2)
    assert job.scheduled_at == NOW + timedelta(seconds=17.5)
    assert job.errors == [
        {"attempt": 1, "at": "x", "error": "first"},
        {"attempt": 2, "at": "2026-11-23T12:00:00.000000Z", "error": "zweiter 'Ü'\n"},
    ]
    assert (job.completed_at, job.discarded_at, job.cancelled_at) == (None, None, None)


async def test_a_snoozed_job_is_scheduled(add: Add, run: Run, find: Find) -> None:
    (id,) = await add(executing())
    ack = Ack(id, 2, BEGUN, S.SCHEDULED, delay=60, spent=False, meta={"snoozed": 1})
    await acknowledge(run, ack)
    job = await find(id)
    assert (job.state, job.attempt, job.meta) == (S.SCHEDULED, 1, {"snoozed": 1})
    assert job.scheduled_at == NOW + timedelta(seconds=60)
    assert job.errors == []


@pytest.mark.parametrize(
    ("state", "column"), [(S.DISCARDED, "discarded_at"), (S.CANCELLED, "cancelled_at")]
)
async def test_an_ended_job_has_its_error(
    add: Add, run: Run, find: Find, state: JobState, column: str
) -> None:
    (id,) = await add(executing())
    await acknowledge(run, Ack(id, 2, BEGUN, state, error="the last"))
    job = await find(id)
    assert (job.state, job.attempt, getattr(job, column)) == (state, 2, NOW)
    times = [job.completed_at, job.discarded_at, job.cancelled_at]
    assert times.count(None) == 2
    assert [error["error"] for error in job.errors] == ["the last"]


@pytest.mark.parametrize("delay", [0, 0.000001, 3.25, 86400 * 365 * 100])
async def test_a_delay_sets_the_next_time(add: Add, run: Run, find: Find, delay: float) -> None:
    (id,) = await add(executing())
    await acknowledge(run, Ack(id, 2, BEGUN, S.RETRYABLE, delay=delay, error="x"))
    assert (await find(id)).scheduled_at == NOW + timedelta(seconds=delay)


@pytest.mark.parametrize(
    "given",
    [
        {"attempt": 3},
        {"attempted_at": NOW},
        {"state": S.AVAILABLE},
        {"state": S.COMPLETED},
        {"state": S.CANCELLED},
    ],
    ids=str,
)
async def test_an_outcome_does_not_apply_to_another_attempt_or_state(
    add: Add, run: Run, find: Find, given: dict[str, Any]
) -> None:
    fields = {"attempt": 2, "attempted_at": BEGUN, "state": S.EXECUTING, **given}
    (id,) = await add(JobFactory(**fields))
    assert await acknowledge(run, Ack(id, 2, BEGUN, S.DISCARDED, error="too late")) == []
    job = await find(id)
    assert (job.state, job.errors) == (fields["state"], [])


async def test_an_outcome_applies_only_once(add: Add, run: Run, find: Find) -> None:
    (id,) = await add(executing())
    ack = Ack(id, 2, BEGUN, S.RETRYABLE, delay=1, error="x")
    assert await acknowledge(run, ack) == [id]
    assert await acknowledge(run, ack) == []
    assert len((await find(id)).errors) == 1


async def test_only_the_outcome_of_the_current_attempt_applies(
    add: Add, run: Run, find: Find
) -> None:
    (id,) = await add(executing())
    late = Ack(id, 1, BEGUN - timedelta(minutes=1), S.DISCARDED, error="late")
    assert await acknowledge(run, late, Ack(id, 2, BEGUN, S.COMPLETED)) == [id]
    assert (await find(id)).state is S.COMPLETED


async def test_outcomes_of_deleted_jobs_are_skipped(add: Add, run: Run, find: Find) -> None:
    ids = await add(*(executing() for _ in range(50)))
    acks = [Ack(id, 2, BEGUN, S.COMPLETED) for id in (*ids, 123456789)]
    assert sorted(await acknowledge(run, *acks)) == ids
    assert await acknowledge(run) == []


async def test_values_of_workers_are_bound_and_never_formatted(
    add: Add, run: Run, find: Find
) -> None:
    (id,) = await add(executing())
    nasty = "'; DROP TABLE oban_jobs; -- %(acks)s %s :acks {} \\ \" \u2028 😀"
    await acknowledge(run, Ack(id, 2, BEGUN, S.COMPLETED, error=nasty, meta={nasty: nasty}))
    job = await find(id)
    assert job.errors[0]["error"] == nasty
    assert job.meta == {nasty: nasty}


MARK = {"cancel_attempted_at": "2026-11-23T11:59:59"}


class TestCancelledMeanwhile:
    @pytest.mark.parametrize(
        "ack",
        [
            {"state": S.RETRYABLE, "delay": 60, "error": "boom"},
            {"state": S.DISCARDED, "error": "boom"},
            {"state": S.SCHEDULED, "delay": 60, "spent": False, "meta": {"snoozed": 1}},
        ],
        ids=lambda ack: str(ack["state"]),
    )
    async def test_a_cancelled_job_does_not_run_again(
        self, add: Add, run: Run, find: Find, ack: dict[str, Any]
    ) -> None:
        (id,) = await add(executing(meta={"mine": 1, **MARK}))
        before = await find(id)
        assert await acknowledge(run, Ack(id, 2, BEGUN, **ack)) == [id]
        job = await find(id)
        assert (job.state, job.attempt, job.cancelled_at) == (S.CANCELLED, 2, NOW)
        assert (job.discarded_at, job.scheduled_at) == (None, before.scheduled_at)
        assert [entry["error"] for entry in job.errors] == ["boom"] * ("error" in ack)

    @pytest.mark.parametrize("state", [S.COMPLETED, S.CANCELLED])
    async def test_a_cancelled_job_may_complete(
        self, add: Add, run: Run, find: Find, state: JobState
    ) -> None:
        (id,) = await add(executing(meta=MARK))
        await acknowledge(run, Ack(id, 2, BEGUN, state))
        job = await find(id)
        assert (job.state, job.meta) == (state, MARK)
        assert getattr(job, f"{state}_at") == NOW

    async def test_the_mark_of_one_job_does_not_cancel_another(
        self, add: Add, run: Run, find: Find
    ) -> None:
        ids = await add(executing(meta=MARK), executing())
        await acknowledge(run, *(Ack(id, 2, BEGUN, S.RETRYABLE, delay=1) for id in ids))
        assert [(await find(id)).state for id in ids] == [S.CANCELLED, S.RETRYABLE]


@pytest.mark.parametrize(
    "meta", [[1], ["cancel_attempted_at"], "cancel_attempted_at", 7, None], ids=str
)
async def test_a_meta_that_is_no_object_disturbs_no_outcome(
    add: Add, run: Run, find: Find, with_meta: WithMeta, meta: Any
) -> None:
    recorded, failed = await add(executing(), executing())
    for id in (recorded, failed):
        await with_meta(id, meta)
    kept = Ack(recorded, 2, BEGUN, S.COMPLETED, meta={"return": 1})
    await acknowledge(run, kept, Ack(failed, 2, BEGUN, S.RETRYABLE, delay=1))
    assert (await find(recorded)).meta == {"meta": meta, "return": 1}
    job = await find(failed)
    assert (job.state, job.meta) == (S.RETRYABLE, meta)
