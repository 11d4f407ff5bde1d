"""Failed attempts: each error of a worker is recorded, and the job is tried again after its
backoff.
"""

import asyncio
import sys
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oban_sqla import Cancel, Job, JobState, Record, RetryAfter, Worker, job
from oban_sqla.clock import LONGEST_INTERVAL
from oban_sqla.runtime.outcome import LONGEST_ERROR, storable
from tests.attempts import (
    Async,
    Behaviour,
    Emitted,
    Stubborn,
    Sync,
    backs_off,
    behaviours,
    execute,
    perform,
    raising,
)
from tests.claimed import claimed

kinds = pytest.mark.parametrize("kind", [Async, Sync])


class SilentError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


class LeavingError(Exception):
    def __str__(self) -> str:
        raise SystemExit


class UnrepresentableError(Exception):
    def __repr__(self) -> str:
        raise KeyboardInterrupt

    __str__ = __repr__


@kinds
@pytest.mark.parametrize(
    ("error", "text"),
    [
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (asyncio.CancelledError("by itself"), "CancelledError: by itself"),
        (StopIteration(5), "StopIteration: 5"),
        (StopAsyncIteration(), "StopAsyncIteration"),
        (GeneratorExit(), "GeneratorExit"),
        (TimeoutError(), "TimeoutError"),
        (MemoryError(), "MemoryError"),
        (BaseExceptionGroup("all", [SystemExit(1), ValueError("x")]), "ValueError: x"),
        (SilentError(), "SilentError: <exception str() failed>"),
        (LeavingError(), "LeavingError: <exception str() failed>"),
        (UnrepresentableError(), "UnrepresentableError: <exception str() failed>"),
        (SyntaxError("odd", ("file", 1, "offset", "text")), "SyntaxError"),
        (ValueError("a\x00b \ud800 \U0001f600"), "ValueError: a\\x00b \\ud800 \U0001f600"),
        (ValueError("x" * 1_000_000), "characters left out ..."),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
async def test_every_error_is_recorded_and_the_job_is_retried(
    kind: type[Worker], error: BaseException, text: str
) -> None:
    ack = await perform(kind, raising(error))
    assert ack.state is JobState.RETRYABLE
    assert text in str(ack.error)
    assert len(str(ack.error)) <= LONGEST_ERROR + 100


class ChosenBySubclass(
    Worker,
    retry_on=ConnectionError,
    discard_on=(OSError, ValueError),
    cancel_on=LookupError,
):
    async def process(self, job: Job) -> Any:
        return behaviours["process"](job)


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (ConnectionResetError(), JobState.RETRYABLE),
        (OSError(), JobState.DISCARDED),
        (KeyError("id"), JobState.CANCELLED),
        (TypeError(), JobState.DISCARDED),
        (SystemExit(), JobState.RETRYABLE),
    ],
)
async def test_the_class_of_the_error_decides_the_state_of_the_job(
    error: BaseException, state: JobState
) -> None:
    emitted: Emitted = []
    ack = await perform(ChosenBySubclass, raising(error), emitted)
    assert ack.state is state
    assert type(error).__name__ in str(ack.error)
    assert (ack.delay is None) is (state is not JobState.RETRYABLE)
    name, exception = emitted[-1]
    assert (name, exception.state) == ("job_exception", state)


class TestRetryAfter:
    @pytest.mark.parametrize(("seconds", "delay"), [(30, 30.0), (timedelta(minutes=2), 120.0)])
    async def test_chooses_the_delay(self, seconds: Any, delay: float) -> None:
        behaviours["backoff"] = lambda job: 5
        ack = await perform(Async, raising(RetryAfter(seconds)))
        assert (ack.state, ack.delay, ack.spent) == (JobState.RETRYABLE, delay, True)
        assert f"oban_sqla.RetryAfter: retry after {delay:g} s" in str(ack.error)

    async def test_records_the_reason(self) -> None:
        def process(job: Job) -> None:
            try:
                raise ConnectionError("429")
            except ConnectionError as error:
                raise RetryAfter(5) from error

        assert "ConnectionError: 429" in str((await perform(Async, process)).error)

    async def test_precedes_the_options_for_classes_of_errors(self) -> None:
        ack = await perform(ChosenBySubclass, raising(RetryAfter(5)))
        assert (ack.state, ack.delay) == (JobState.RETRYABLE, 5.0)

    async def test_after_the_last_attempt_discards(self) -> None:
        ack = await perform(Async, raising(RetryAfter(5)), attempt=3, max_attempts=3)
        assert ack.state is JobState.DISCARDED

    async def test_is_limited_to_what_the_database_can_hold(self) -> None:
        ack = await perform(Async, raising(RetryAfter(timedelta.max)))
        assert ack.delay == LONGEST_INTERVAL

    @pytest.mark.parametrize("seconds", [-1, float("inf"), "5"])
    def test_refuses_an_invalid_delay(self, seconds: Any) -> None:
        with pytest.raises((ValueError, TypeError), match=r"RetryAfter\(seconds\) must"):
            RetryAfter(seconds)


async def test_a_traceback_that_can_t_be_made_is_named() -> None:
    error = SyntaxError("odd", ("file", 1, "offset", "text"))
    with pytest.raises(TypeError):
        traceback.format_exception(error)
    ack = await perform(Async, raising(error))
    assert ack.error == "SyntaxError, whose traceback can't be printed: TypeError"


async def test_a_worker_that_cancels_its_own_task_fails() -> None:
    async def process() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel("enough")
        await asyncio.Event().wait()

    behaviour: Behaviour = lambda job: process()  # noqa: E731
    # A task of its own, as in the producer: it stays marked as cancelled.
    ack = await asyncio.create_task(perform(Async, behaviour))
    assert "CancelledError: enough" in str(ack.error)


async def test_a_result_that_can_t_be_kept_fails_the_attempt() -> None:
    ack = await perform(Async, lambda job: Record({1, 2}))
    assert "TypeError: Record(value) is a set, not JSON: {1, 2}" in str(ack.error)
    ack = await perform(Async, lambda job: Cancel(SilentError()))  # type: ignore[arg-type]
    assert (ack.state, "RuntimeError" in str(ack.error)) == (JobState.RETRYABLE, True)


async def test_a_constructor_that_raises_fails_the_attempt() -> None:
    class Broken(Worker):
        def __init__(self) -> None:
            raise SystemExit("not built")

        async def process(self, job: Job) -> None: ...

    ack = await execute(claimed(Broken.new().worker))
    assert (ack.state, "SystemExit: not built" in str(ack.error)) == (JobState.RETRYABLE, True)


class TestErrorText:
    @given(st.text(st.characters() | st.sampled_from("\x00\ud800\udfff")))
    def test_the_text_can_be_stored(self, text: str) -> None:
        kept = storable(text)
        assert "\x00" not in kept
        assert kept.encode().decode() == kept

    def test_a_long_text_keeps_its_beginning_and_end(self) -> None:
        kept = storable(f"<begin>{'x' * 1_000_000}<end>")
        assert kept.startswith("<begin>x")
        assert kept.endswith("x<end>")
        assert "\n... 980012 characters left out ...\n" in kept

    def test_a_short_text_is_whole(self) -> None:
        assert storable("x" * LONGEST_ERROR) == "x" * LONGEST_ERROR


class TestBackoff:
    @pytest.mark.parametrize("given", [60, 60.0, timedelta(minutes=1)])
    async def test_a_worker_may_choose_the_delay(self, given: Any) -> None:
        behaviours["backoff"] = lambda job: given
        ack = await execute(claimed(Stubborn.new().worker))
        assert (ack.delay, "backoff" in str(ack.error)) == (60.0, False)

    async def test_a_function_may_choose_the_delay(self) -> None:
        @job(backoff=lambda job: job.attempt * 10)
        def fail() -> None:
            raise ValueError

        assert (await execute(claimed(fail.new().worker, attempt=3))).delay == 30

    async def test_the_delay_lies_between_now_and_the_end_of_the_calendar(self) -> None:
        behaviours["backoff"] = lambda job: 0
        assert (await execute(claimed(Stubborn.new().worker))).delay == 0
        behaviours["backoff"] = lambda job: timedelta.max
        assert (await execute(claimed(Stubborn.new().worker))).delay == LONGEST_INTERVAL

    @pytest.mark.parametrize(
        ("backoff", "note"),
        [
            (lambda job: None, "TypeError: backoff must be a timedelta or seconds, not None"),
            (lambda job: "5", "TypeError: backoff must be a timedelta or seconds, not '5'"),
            (lambda job: -1, "ValueError: backoff must not be negative, got -1"),
            (lambda job: float("nan"), "ValueError: backoff must be finite, not nan"),
            (lambda job: 10**400, "is more seconds than a date holds"),
            (raising(ZeroDivisionError("by zero")), "ZeroDivisionError: by zero"),
            (raising(SystemExit(1)), "SystemExit: 1"),
            (raising(KeyboardInterrupt()), "KeyboardInterrupt"),
            (raising(UnrepresentableError()), "UnrepresentableError: <exception str() failed>"),
        ],
    )
    async def test_an_invalid_delay_is_replaced_by_the_default_with_a_note(
        self, backoff: Behaviour, note: str
    ) -> None:
        behaviours["backoff"] = backoff
        emitted: Emitted = []
        ack = await execute(claimed(Stubborn.new().worker), emitted)
        assert ack.state is JobState.RETRYABLE
        assert backs_off(ack)
        assert [data.delay for name, data in emitted if name == "backoff_failed"] == [ack.delay]
        boom, _, reason = str(ack.error).partition("\nbackoff() of the worker failed, so the def")
        assert "ValueError: boom" in boom
        assert note in reason

    async def test_backoff_is_not_called_after_the_last_attempt(self) -> None:
        behaviours["backoff"] = raising(AssertionError("asked"))
        ack = await execute(claimed(Stubborn.new().worker, attempt=20))
        assert (ack.state, "asked" in str(ack.error)) == (JobState.DISCARDED, False)


class TestUnknownWorkers:
    async def test_the_attempt_fails_with_the_way_out(self) -> None:
        emitted: Emitted = []
        ack = await execute(claimed("app.mails.Welcome"), emitted)
        assert ack.state is JobState.RETRYABLE
        assert backs_off(ack)
        assert str(ack.error).endswith(
            "worker 'app.mails.Welcome' is not registered; import its module with"
            " `oban-sqla start --import app.mails`, or before Oban starts\n"
        )
        assert [name for name, _ in emitted] == ["job_start", "job_exception"]

    async def test_no_import_is_attempted(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        flag = tmp_path / "imported"
        (tmp_path / "tempting.py").write_text(
            f"open({str(flag)!r}, 'w').close()\n"
            "from oban_sqla import Worker\n"
            "class Ping(Worker):\n    def process(self, job): ...\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        for name in ("tempting.Ping", "tempting", "tempting:Ping", "tempting.sub.Ping"):
            ack = await execute(claimed(name))
            assert f"worker '{name}' is not registered" in str(ack.error)
        assert "tempting" not in sys.modules
        assert not flag.exists()
