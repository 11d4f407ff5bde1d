"""Run a job, and turn whatever comes of it into an `Ack`."""

import asyncio
import json
import random
import time
from collections.abc import Callable, Coroutine, Mapping
from datetime import datetime
from functools import partial
from typing import Any

from ..clock import LONGEST_INTERVAL
from ..errors import UnreadableJobError
from ..events import (
    BackoffFailed,
    JobDeadlineMissed,
    JobDropped,
    JobException,
    JobStart,
    JobStop,
    JobUnconnected,
)
from ..models import Job, JobState, validation
from ..models.job import RECORDED_AS
from ..statements.acknowledge import Ack
from ..statements.claimed import Claimed, Loads
from ..workers import on_error
from ..workers.backoff import jittery_clamped
from ..workers.current_job import executing
from ..workers.outcomes import Cancel, Record, RetryAfter, Snooze, refuse_class
from ..workers.registry import find
from .attempt import Attempt
from .connecting import UnconnectedError
from .deadline import missed
from .left_behind import LeftBehind
from .perform import perform
from .service import Emit
from .traceback_text import describe
from .worker_session import WorkerSessions, Written

LONGEST_ERROR = 20_000
"""Characters of an error that are kept: as many from its beginning as from its end."""

RECONNECT = (1.0, 5.0)
"""Seconds, at least and at most, until a job is tried again whose session got no connection."""

INTERRUPTED = "the job was cancelled while it ran, so its task was, too"


class Executor:
    """Runs the jobs of one instance."""

    def __init__(
        self,
        sessions: WorkerSessions,
        emit: Emit,
        loads: Loads = json.loads,
        *,
        freed: Callable[[str], None] = lambda queue: None,
    ) -> None:
        """An executor that calls `freed` with a queue when one of its places becomes free late."""
        self._sessions = sessions
        self._loads = loads
        self._emit = emit
        self.left_behind = LeftBehind(emit, freed)
        # By the id of the job. A task that is cancelled before its first step leaves its attempt
        # here, until the job runs again; that happens at a stop alone.
        self._attempts: dict[int, Attempt] = {}

    def execute(
        self, job: Job, abandoned: Callable[[], bool], *, held: float = 0.0
    ) -> Coroutine[Any, Any, Ack | Written | None]:
        """The outcome of an attempt; an exception of the worker is an outcome, too.

        `Written` if the worker's own transaction has written the outcome. `None` if the task was
        cancelled because the job is `abandoned`: it is to be given back.

        held: the seconds from the claim of the job until now.
        """
        attempt = Attempt(job, held)
        self._attempts[attempt.id] = attempt
        return self._execute(attempt, abandoned)

    def execute_claimed(
        self, claimed: Claimed, held: float, abandoned: Callable[[], bool]
    ) -> Coroutine[Any, Any, Ack | Written | None]:
        """`execute` a job that was held for so many seconds after its claim.

        A job that can't be read is discarded: another attempt could not read it either.
        """
        try:
            job = claimed.job(self._loads)
        except UnreadableJobError as error:
            return self._unreadable(claimed, held, error)
        return self.execute(job, abandoned, held=held)

    def cancel(self, id: int) -> None:
        """Tell a job that it is cancelled, and interrupt it if its worker wants that.

        It may be told more than once, and before the first step of its task.
        """
        if (attempt := self._attempts.get(id)) is not None:
            attempt.cancel()

    async def _unreadable(self, claimed: Claimed, held: float, error: UnreadableJobError) -> Ack:
        attempt = Attempt(claimed.readable_job(), held)
        text = storable(f"{error}: {error.__cause__!r}" if error.__cause__ else str(error))
        exception = JobException(attempt.own, JobState.DISCARDED, 0.0, attempt.queue_time, error)
        self._emit("job_exception", exception)
        return _ack(attempt, JobState.DISCARDED, error=text)

    async def _execute(
        self, attempt: Attempt, abandoned: Callable[[], bool]
    ) -> Ack | Written | None:
        token = executing.set(attempt.own)
        started = time.monotonic()
        try:
            if (deadline := missed(attempt.own)) is not None:
                return self._miss(attempt, deadline)
            self._emit("job_start", JobStart(attempt.own))
            worker: list[Any] = []
            try:
                outcome = partial(_success, attempt)
                result = await perform(attempt, worker, sessions=self._sessions, outcome=outcome)
                if isinstance(result, Written):
                    if result.applied:
                        job = attempt.job
                        stop = JobStop(job, result.ack.state, *_times(attempt, started))
                        self._emit("job_stop", stop)
                    else:
                        self._drop(attempt, started)
                    return result
                ack = outcome(result)
            except BaseException as error:
                cancelled = isinstance(error, asyncio.CancelledError)
                if cancelled and abandoned():
                    self._drop(attempt, started)
                    return None
                if isinstance(error, UnconnectedError):
                    self._drop(attempt, started)
                    return self._try_again(attempt, error)
                if not cancelled or not attempt.interrupted:
                    job = attempt.job
                    ack = _failure(attempt, job, error, worker[0] if worker else None, self._emit)
                    exception = JobException(job, ack.state, *_times(attempt, started), error)
                    self._emit("job_exception", exception)
                    return ack
                ack = _ack(attempt, JobState.CANCELLED, error=INTERRUPTED)
            job = attempt.job
            self._emit("job_stop", JobStop(job, ack.state, *_times(attempt, started)))
            return ack
        finally:
            executing.reset(token)
            if self._attempts.get(attempt.id) is attempt:
                del self._attempts[attempt.id]
            if attempt.left_behind is not None:
                self.left_behind.add(attempt.job, attempt.left_behind)

    def _miss(self, attempt: Attempt, deadline: datetime) -> Ack:
        self._emit("job_deadline_missed", JobDeadlineMissed(attempt.job, deadline))
        error = f"the job had not begun by its deadline, {deadline.isoformat()}"
        return _ack(attempt, JobState.CANCELLED, error=error)

    def _drop(self, attempt: Attempt, started: float) -> None:
        self._emit("job_dropped", JobDropped(attempt.job, *_times(attempt, started)))

    def _try_again(self, attempt: Attempt, error: UnconnectedError) -> Ack:
        if attempt.cancelled:
            return _ack(attempt, JobState.CANCELLED)
        delay = random.uniform(*RECONNECT)
        unconnected = JobUnconnected(attempt.job, delay, error.__cause__ or error)
        self._emit("job_unconnected", unconnected)
        return _ack(attempt, JobState.SCHEDULED, delay=delay, spent=False)


def _success(attempt: Attempt, result: Any) -> Ack:
    match result:
        case None:
            return _ack(attempt, JobState.COMPLETED)
        case Cancel(reason=reason):
            return _ack(attempt, JobState.CANCELLED, error=storable(str(reason)))
        case Snooze() if attempt.cancelled:
            return _ack(attempt, JobState.CANCELLED)
        case Snooze(seconds=seconds):
            delay = min(validation.delay("Snooze", seconds).total_seconds(), LONGEST_INTERVAL)
            count = {"snoozed": _snoozed(attempt.job) + 1}
            return _ack(attempt, JobState.SCHEDULED, delay=delay, spent=False, meta=count)
        case Record(value=value):
            meta = {"recorded": RECORDED_AS, "return": value}
            return _ack(attempt, JobState.COMPLETED, meta=meta)
        case _:
            refuse_class(attempt.job.worker, result)
            return _ack(attempt, JobState.COMPLETED)


def _failure(attempt: Attempt, job: Job, error: BaseException, worker: Any, emit: Emit) -> Ack:
    text = describe(error)
    known = find(job.worker)
    verdict = on_error.verdict(known.options, error) if known else "retry"
    if attempt.cancelled or verdict == "cancel":
        return _ack(attempt, JobState.CANCELLED, error=storable(text))
    if job.attempt >= job.max_attempts or verdict == "discard":
        return _ack(attempt, JobState.DISCARDED, error=storable(text))
    if isinstance(error, RetryAfter):
        delay = min(error.seconds, LONGEST_INTERVAL)
        return _ack(attempt, JobState.RETRYABLE, delay=delay, error=storable(text))
    delay = jittery_clamped(job.attempt, job.max_attempts)
    if worker is not None:
        try:
            chosen = validation.delay("backoff", worker.backoff(attempt.copy()))
            delay = min(chosen.total_seconds(), LONGEST_INTERVAL)
        except BaseException as wrong:
            text += f"\nbackoff() of the worker failed, so the default applies:\n{describe(wrong)}"
            emit("backoff_failed", BackoffFailed(job, delay, wrong))
    return _ack(attempt, JobState.RETRYABLE, delay=delay, error=storable(text))


def _snoozed(job: Job) -> int:
    # It is the user's meta: anything may be there, and if others wrote it, it may be any JSON.
    count = job.meta.get("snoozed") if isinstance(job.meta, Mapping) else None
    return count if isinstance(count, int) else 0


def _ack(attempt: Attempt, state: JobState, **outcome: Any) -> Ack:
    return Ack(*attempt.fence, state, **outcome)


def _times(attempt: Attempt, started: float) -> tuple[float, float]:
    return time.monotonic() - started, attempt.queue_time


def storable(text: str) -> str:
    """The text as PostgreSQL can keep it: valid Unicode without NUL, and not too long."""
    if len(text) > LONGEST_ERROR:
        half = LONGEST_ERROR // 2
        left_out = len(text) - 2 * half
        text = f"{text[:half]}\n... {left_out} characters left out ...\n{text[-half:]}"
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()
