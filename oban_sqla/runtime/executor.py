"""`Executor`: runs a claimed job, emits its events, and returns its outcome."""

import asyncio
import json
import random
import time
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any

from ..errors import ObanError, UnreadableJobError
from ..events import (
    JobDeadlineMissed,
    JobDropped,
    JobException,
    JobStart,
    JobStop,
    JobUnconnected,
)
from ..models import Job, JobState
from ..statements.acknowledge import Ack
from ..statements.claim import NONE_LEFT
from ..statements.claimed import Claimed, Loads
from ..workers.current_job import executing
from ..workers.outcomes import RateLimited
from .attempt import Attempt
from .connecting import UnconnectedError
from .deadline import missed
from .left_behind import LeftBehind
from .outcome import failure, rate_limited, storable, success
from .perform import absorb_cancellation, perform
from .service import Emit
from .worker_session import WorkerSessions, Written

RECONNECT = (1.0, 5.0)
"""The least and most seconds until a job is tried again whose session got no connection."""

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
        """`freed` is called with a queue when a thread or task that was left behind ends."""
        self._sessions = sessions
        self._loads = loads
        self._emit = emit
        self.left_behind = LeftBehind(emit, freed)
        # Keyed by the job's id. A task that is cancelled before its first step never removes its
        # attempt, but this only happens at a stop.
        self._attempts: dict[int, Attempt] = {}

    def execute(
        self, job: Job, abandoned: Callable[[], bool], *, held: float = 0.0
    ) -> Coroutine[Any, Any, Ack | Written | None]:
        """Run an attempt and return its outcome, also if the worker raises.

        `Written` if the worker's own transaction has written the outcome. `None` if the task was
        cancelled because the job is `abandoned`, so that the job goes back.

        held: the seconds from the claim of the job until now.
        """
        attempt = Attempt(job, held)
        self._attempts[attempt.id] = attempt
        return self._execute(attempt, abandoned)

    def execute_claimed(
        self, claimed: Claimed, held: float, abandoned: Callable[[], bool]
    ) -> Coroutine[Any, Any, Ack | Written | None]:
        """`execute` a job that was held for `held` seconds after its claim.

        A job that can't be read is discarded, since another attempt could not read it either. A job
        without an attempt left is discarded, too.
        """
        if claimed.none_left:
            return self._discard(claimed, held, ObanError(NONE_LEFT))
        try:
            job = claimed.job(self._loads)
        except UnreadableJobError as error:
            return self._discard(claimed, held, error)
        return self.execute(job, abandoned, held=held)

    def cancel(self, id: int) -> None:
        """Tell a running job that it is cancelled, and interrupt it if its worker is interruptible.

        May be called more than once, and before the first step of the job's task.
        """
        if (attempt := self._attempts.get(id)) is not None:
            attempt.cancel()

    async def _discard(self, claimed: Claimed, held: float, error: ObanError) -> Ack:
        attempt = Attempt(claimed.readable_job(), held)
        text = storable(f"{error}: {error.__cause__!r}" if error.__cause__ else str(error))
        exception = JobException(attempt.own, JobState.DISCARDED, 0.0, attempt.queue_time, error)
        self._emit("job_exception", exception)
        return attempt.ack(JobState.DISCARDED, error=text)

    async def _execute(
        self, attempt: Attempt, abandoned: Callable[[], bool]
    ) -> Ack | Written | None:
        token = executing.set(attempt.own)
        attempt.started = time.monotonic()
        try:
            if (deadline := missed(attempt.own)) is not None:
                return self._miss(attempt, deadline)
            self._emit("job_start", JobStart(attempt.own))
            try:
                result = await perform(attempt, self._sessions)
                outcome = result if isinstance(result, Written) else success(attempt, result)
            except BaseException as error:
                return self._fail(attempt, error, abandoned)
            return self._end(attempt, outcome)
        finally:
            await absorb_cancellation()
            executing.reset(token)
            if self._attempts.get(attempt.id) is attempt:
                del self._attempts[attempt.id]
            if attempt.left_behind is not None:
                self.left_behind.add(attempt.job, attempt.left_behind)

    def _end(self, attempt: Attempt, outcome: Ack | Written) -> Ack | Written:
        if isinstance(outcome, Written) and not outcome.applied:
            self._drop(attempt)
            return outcome
        ack = outcome.ack if isinstance(outcome, Written) else outcome
        self._emit("job_stop", JobStop(attempt.job, ack.state, *_times(attempt)))
        return outcome

    def _fail(
        self, attempt: Attempt, error: BaseException, abandoned: Callable[[], bool]
    ) -> Ack | Written | None:
        cancelled = isinstance(error, asyncio.CancelledError)
        if cancelled and abandoned():
            self._drop(attempt)
            return None
        if isinstance(error, UnconnectedError):
            self._drop(attempt)
            return self._try_again(attempt, error)
        if cancelled and attempt.interrupted:
            return self._end(attempt, attempt.ack(JobState.CANCELLED, error=INTERRUPTED))
        if isinstance(error, RateLimited):
            return self._end(attempt, rate_limited(attempt, error))
        ack = failure(attempt, error, self._emit)
        exception = JobException(attempt.job, ack.state, *_times(attempt), error)
        self._emit("job_exception", exception)
        return ack

    def _miss(self, attempt: Attempt, deadline: datetime) -> Ack:
        self._emit("job_deadline_missed", JobDeadlineMissed(attempt.job, deadline))
        error = f"the job had not begun by its deadline, {deadline.isoformat()}"
        return attempt.ack(JobState.CANCELLED, error=error)

    def _drop(self, attempt: Attempt) -> None:
        self._emit("job_dropped", JobDropped(attempt.job, *_times(attempt)))

    def _try_again(self, attempt: Attempt, error: UnconnectedError) -> Ack:
        if attempt.cancelled:
            return attempt.ack(JobState.CANCELLED)
        delay = random.uniform(*RECONNECT)
        unconnected = JobUnconnected(attempt.job, delay, error.__cause__ or error)
        self._emit("job_unconnected", unconnected)
        return attempt.ack(JobState.SCHEDULED, delay=delay, spent=False)


def _times(attempt: Attempt) -> tuple[float, float]:
    return time.monotonic() - attempt.started, attempt.queue_time
