"""One attempt: each error becomes an outcome, and none reaches the event loop."""

import asyncio
import gc
import threading
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from oban_sqla import Cancel, Job, JobState, Oban, Record, Snooze, Worker
from oban_sqla.clock import LONGEST_INTERVAL
from oban_sqla.events import JobException, JobStart, JobStop
from oban_sqla.runtime.executor import Executor
from tests.attempts import (
    NOWHERE,
    Async,
    Behaviour,
    Emitted,
    Sync,
    backs_off,
    behaviours,
    perform,
    raising,
)
from tests.claimed import claimed

kinds = pytest.mark.parametrize("kind", [Async, Sync])


@kinds
class TestOutcomes:
    @pytest.mark.parametrize("result", [None, 0, "done", object(), ValueError("not raised")])
    async def test_any_returned_value_completes_the_job(
        self, kind: type[Worker], result: Any
    ) -> None:
        ack = await perform(kind, lambda job: result)
        assert (ack.state, ack.spent, ack.error, ack.meta) == ("completed", True, None, None)

    async def test_record_stores_the_value(self, kind: type[Worker]) -> None:
        ack = await perform(kind, lambda job: Record({"rows": [1, None]}))
        assert ack.state is JobState.COMPLETED
        assert Job("w", meta=ack.meta).recorded == {"rows": [1, None]}

    @pytest.mark.parametrize("outcome", [Cancel, Snooze, Record])
    async def test_the_class_of_an_outcome_fails_the_attempt(
        self, kind: type[Worker], outcome: Any
    ) -> None:
        ack = await perform(kind, lambda job: outcome)
        assert ack.state is JobState.RETRYABLE
        assert f"returned the class {outcome.__name__} instead of an instance" in ack.error

    async def test_cancel_stores_the_reason(self, kind: type[Worker]) -> None:
        ack = await perform(kind, lambda job: Cancel("no such\x00 user"))
        assert (ack.state, ack.error) == (JobState.CANCELLED, r"no such\x00 user")

    @pytest.mark.parametrize("seconds", [90, 90.0, timedelta(seconds=90)])
    async def test_snooze_gives_the_attempt_back(self, kind: type[Worker], seconds: Any) -> None:
        ack = await perform(kind, lambda job: Snooze(seconds), attempt=20)
        assert (ack.state, ack.delay, ack.spent) == (JobState.SCHEDULED, 90.0, False)

    async def test_a_very_long_snooze_stays_within_the_calendar(self, kind: type[Worker]) -> None:
        ack = await perform(kind, lambda job: Snooze(timedelta.max))
        assert ack.delay == LONGEST_INTERVAL

    @pytest.mark.parametrize(("before", "after"), [({}, 1), ({"snoozed": 4}, 5)])
    async def test_snoozes_are_counted(
        self, kind: type[Worker], before: dict[str, Any], after: int
    ) -> None:
        ack = await perform(kind, lambda job: Snooze(1), meta=before)
        assert ack.meta == {"snoozed": after}

    async def test_an_invalid_count_of_snoozes_begins_again(self, kind: type[Worker]) -> None:
        ack = await perform(kind, lambda job: Snooze(1), meta={"snoozed": "often"})
        assert (ack.state, ack.meta) == (JobState.SCHEDULED, {"snoozed": 1})

    async def test_an_exception_is_retried_with_backoff(self, kind: type[Worker]) -> None:
        ack = await perform(kind, raising(ValueError("boom")))
        assert ack.state is JobState.RETRYABLE
        assert ack.spent
        assert backs_off(ack)
        assert ack.error is not None
        assert ack.error.startswith("Traceback (most recent call last):\n")
        assert ack.error.endswith("ValueError: boom\n")

    async def test_an_exception_in_the_last_attempt_discards(self, kind: type[Worker]) -> None:
        ack = await perform(kind, raising(ValueError("boom")), attempt=20)
        assert (ack.state, ack.delay) == (JobState.DISCARDED, None)
        assert "ValueError: boom" in str(ack.error)


@kinds
@pytest.mark.parametrize("state", [JobState.COMPLETED, JobState.RETRYABLE])
async def test_changes_that_a_worker_makes_to_its_job_change_no_outcome(
    kind: type[Worker], state: JobState
) -> None:
    def process(job: Job) -> None:
        job.id, job.attempt, job.attempted_at = 1, 5, None
        job.max_attempts = 1
        if state is JobState.RETRYABLE:
            raise ValueError

    assert (await perform(kind, process)).state is state


async def test_a_job_may_be_added_to_a_session_whose_commit_expires_it(
    sessions: async_sessionmaker[AsyncSession],
) -> None:
    async def process(job: Job) -> None:
        async with sessions() as session:
            session.add(job)
            session.expire(job)
        raise ValueError("boom")

    emitted: Emitted = []
    ack = await perform(Async, lambda job: process(job), emitted)
    assert (ack.state, "backoff" in str(ack.error)) == (JobState.RETRYABLE, False)
    assert emitted[1][1].job.worker == Async.new().worker


async def test_events_have_the_job_as_it_was_claimed() -> None:
    def process(job: Job) -> None:
        job.args = {"mine": True}
        vars(job).pop("cancelled_at")  # as if a session had expired the job

    emitted: Emitted = []
    await perform(Async, process, emitted, args={"number": 1})
    told = emitted[1][1].job
    assert (told.args, told.cancelled_at) == ({"number": 1}, None)


async def test_a_job_that_was_not_changed_is_not_copied() -> None:
    given: list[Job] = []
    emitted: Emitted = []
    await perform(Async, given.append, emitted)
    assert [event.job for _, event in emitted] == given * 2


async def test_values_in_arguments_are_not_compared() -> None:
    class Touchy:
        def __eq__(self, other: object) -> bool:
            raise AssertionError("it was compared")

    def process(job: Job) -> None:
        vars(job)["args"] = {"number": Touchy()}

    emitted: Emitted = []
    ack = await perform(Async, process, emitted, args={"number": 1})
    assert (ack.state, emitted[1][1].job.args) == (JobState.COMPLETED, {"number": 1})


class TestThreads:
    async def test_sync_work_never_blocks_the_loop(self) -> None:
        begun, go_on = threading.Event(), threading.Event()

        def process(job: Job) -> Record:
            begun.set()
            assert go_on.wait(20)
            return Record(threading.current_thread().name)

        running = asyncio.create_task(perform(Sync, process))
        await asyncio.to_thread(begun.wait, 20)
        # The event loop runs this while the worker waits.
        go_on.set()
        assert (await running).meta == {"recorded": "json", "return": "oban-job-7"}

    async def test_async_work_stays_on_the_loop(self) -> None:
        ack = await perform(Async, lambda job: Record(threading.current_thread().name))
        assert ack.meta is not None
        assert ack.meta["return"] == threading.current_thread().name

    async def test_a_sync_process_that_returns_a_coroutine_is_awaited_on_the_loop(self) -> None:
        async def later() -> Record:
            return Record(threading.current_thread().name)

        ack = await perform(Sync, lambda job: later())
        assert ack.meta is not None
        assert ack.meta["return"] == threading.current_thread().name

    async def test_a_thread_left_behind_disturbs_no_other_job(self) -> None:
        begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

        def process(job: Job) -> None:
            begun.set()
            assert go_on.wait(20)
            ended.set()

        behaviours["process"] = process
        executor = Executor(NOWHERE, lambda name, data: None)
        running = asyncio.create_task(
            executor.execute(claimed(Sync.new().worker), abandoned=lambda: True)
        )
        await asyncio.to_thread(begun.wait, 20)
        running.cancel()
        assert await running is None
        go_on.set()
        assert await asyncio.to_thread(ended.wait, 20)


class TestAbandonment:
    async def test_a_cancelled_job_that_is_abandoned_has_no_outcome(self) -> None:
        emitted: Emitted = []
        started = asyncio.Event()

        async def process() -> None:
            started.set()
            await asyncio.Event().wait()

        behaviours["process"] = lambda job: process()
        executor = Executor(NOWHERE, lambda *data: emitted.append(data))
        running = asyncio.create_task(executor.execute(claimed(Async.new().worker), lambda: True))
        await started.wait()
        running.cancel()
        assert await running is None
        assert [name for name, _ in emitted] == ["job_start", "job_dropped"]

    async def test_a_result_or_error_after_the_cancellation_is_the_outcome(self) -> None:
        for process, state in ((raising(ValueError()), "retryable"), (lambda job: 1, "completed")):
            behaviours["process"] = process
            executor = Executor(NOWHERE, lambda name, data: None)
            ack = await executor.execute(claimed(Async.new().worker), lambda: True)
            assert ack is not None
            assert ack.state == state


class TestEvents:
    @pytest.mark.parametrize(
        ("process", "state"),
        [
            (lambda job: None, "completed"),
            (lambda job: Cancel("x"), "cancelled"),
            (lambda job: Snooze(1), "scheduled"),
        ],
    )
    async def test_a_return_emits_job_stop(self, process: Behaviour, state: str) -> None:
        emitted: Emitted = []
        await perform(Sync, process, emitted)
        (started, start), (stopped, stop) = emitted
        assert (started, stopped) == ("job_start", "job_stop")
        assert isinstance(start, JobStart)
        assert isinstance(stop, JobStop)
        assert start.job is stop.job
        assert (stop.state, stop.queue_time) == (state, 2.0)
        assert stop.duration >= 0

    @pytest.mark.parametrize(("attempt", "state"), [(1, "retryable"), (20, "discarded")])
    async def test_an_exception_emits_an_event_with_the_error(
        self, attempt: int, state: str
    ) -> None:
        emitted: Emitted = []
        error = ValueError("boom")
        await perform(Sync, raising(error), emitted, attempt=attempt)
        name, exception = emitted[1]
        assert name == "job_exception"
        assert isinstance(exception, JobException)
        assert (exception.state, exception.error, exception.queue_time) == (state, error, 2.0)

    @pytest.mark.parametrize("name", ["job_start", "job_stop", "job_exception"])
    async def test_a_listener_that_raises_changes_no_outcome(
        self, name: str, engine: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        oban = Oban(engine)

        def leave(oban: Oban, data: object) -> None:
            raise SystemExit

        event.listen(oban, name, leave)
        executor = Executor(NOWHERE, oban._emit)
        failing = name == "job_exception"
        behaviours["process"] = raising(ValueError()) if failing else lambda job: None
        ack = await executor.execute(claimed(Async.new().worker), lambda: False)
        assert ack is not None
        assert ack.state == ("retryable" if failing else "completed")
        assert f"a listener of {name!r} raised" in caplog.text
        caplog.clear()


async def test_no_object_of_an_attempt_stays_in_memory() -> None:
    class Payload:
        pass

    def alive() -> int:
        gc.collect()
        return sum(type(thing) is Payload for thing in gc.get_objects())

    def process(job: Job) -> None:
        payload = Payload()
        raise ValueError(payload)

    for kind in (Async, Sync):
        # In a task, as in the producer: its last step keeps a reference to the object that woke it.
        await asyncio.create_task(perform(kind, process))
        for thread in threading.enumerate():
            if thread.name == "oban-job-7":
                thread.join()
        assert alive() == 0
