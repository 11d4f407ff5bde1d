"""A job whose first attempt has not begun by its deadline is cancelled, and does not start."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from oban_sqla import Job, JobState, Unique, Worker, job
from oban_sqla.models.deadline import ENTRY
from tests.attempts import Emitted, execute
from tests.claimed import CLAIMED_AT, claimed

AT = datetime(2031, 5, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


class Plain(Worker, queue="deadline"):
    async def process(self, job: Job) -> None: ...


class Prompt(Worker, deadline=timedelta(seconds=1)):
    async def process(self, job: Job) -> None: ...


async def state(worker: type[Worker], **columns: Any) -> JobState:
    """The state of a job that is claimed two seconds after it became due."""
    return (await execute(claimed(worker.new().worker, **columns))).state


class TestAttempt:
    @pytest.mark.parametrize("own", [1, 1.9, "2026-11-01T11:59:59+00:00", "2026-11-01T11:59:59"])
    async def test_after_the_deadline_is_cancelled(self, own: Any) -> None:
        assert await state(Plain, meta={ENTRY: own}) is JobState.CANCELLED

    @pytest.mark.parametrize("own", [2, 1e300, "2026-11-01T12:00:00+00:00", "soon", None, []])
    async def test_until_the_deadline_or_without_one_runs(self, own: Any) -> None:
        assert await state(Plain, meta={ENTRY: own}) is JobState.COMPLETED

    @pytest.mark.parametrize("meta", [[], "text", None, 5])
    async def test_with_an_invalid_meta_runs(self, meta: Any) -> None:
        assert await state(Plain, meta=meta) is JobState.COMPLETED

    async def test_has_the_deadline_of_its_worker(self) -> None:
        assert await state(Prompt) is JobState.CANCELLED

    async def test_has_its_own_deadline_before_that_of_its_worker(self) -> None:
        assert await state(Prompt, meta={ENTRY: 5}) is JobState.COMPLETED

    async def test_after_the_first_ignores_the_deadline(self) -> None:
        assert await state(Prompt, attempt=2) is JobState.COMPLETED

    async def test_a_job_of_an_unknown_worker_fails_as_without_a_deadline(self) -> None:
        assert (await execute(claimed("app.Unknown"))).state is JobState.RETRYABLE

    async def test_an_attempt_cancelled_by_its_deadline_tells_why_and_never_starts(self) -> None:
        emitted: Emitted = []
        ack = await execute(claimed(Prompt.new().worker), emitted)
        assert ack.error == "the job had not begun by its deadline, 2026-11-01T11:59:59+00:00"
        ((name, missed),) = emitted
        assert (name, missed.deadline) == ("job_deadline_missed", CLAIMED_AT - SECOND)


class TestNewJob:
    def test_keeps_seconds_after_it_is_due(self) -> None:
        assert Plain.new(deadline=SECOND).meta == {ENTRY: 1.0}
        assert Plain.new(deadline=5, meta={"a": 1}).meta == {"a": 1, ENTRY: 5.0}

    def test_keeps_an_instant_in_utc(self) -> None:
        assert Plain.new(deadline=AT).meta == {ENTRY: "2031-05-01T12:00:00+00:00"}
        naive = AT.replace(tzinfo=None)
        assert Plain.new(deadline=naive).meta == {ENTRY: "2031-05-01T12:00:00+00:00"}

    def test_takes_the_deadline_of_a_function(self) -> None:
        @job()
        def greet(name: str) -> None: ...

        assert greet.options(deadline=5).new("ann").meta == {ENTRY: 5.0}
        assert greet.new("ann", deadline=5).meta == {ENTRY: 5.0}

    def test_does_not_take_the_deadline_of_a_copied_meta(self) -> None:
        first = Plain.new(deadline=5, meta={"a": 1})
        assert Plain.new(meta=first.meta).meta == {"a": 1}

    @pytest.mark.parametrize("wrong", [0, -1, "5", float("nan"), timedelta(0), True, [5]])
    def test_refuses_an_invalid_deadline(self, wrong: Any) -> None:
        with pytest.raises((TypeError, ValueError), match="deadline must"):
            Plain.new(deadline=wrong)

    def test_is_a_duplicate_whatever_the_deadline(self) -> None:
        unique = Unique(fields=["meta"])
        keys = {
            unique.entry({"meta": Plain.new(deadline=seconds).meta})["key"] for seconds in (1, 2)
        }
        assert len(keys) == 1
