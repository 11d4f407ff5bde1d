"""Run a job, and turn whatever comes of it into an `Ack`."""

import asyncio
import contextlib
import contextvars
import threading
import time
import traceback
from collections.abc import Callable
from inspect import isawaitable
from typing import Any

from sqlalchemy import inspect

from ..errors import JobTimeoutError
from ..events import JobException, JobStart, JobStop
from ..models import Job, JobState, validation
from ..models.job import RECORDED_AS, detached, tell_to_stop
from ..statements.acknowledge import Ack
from ..workers.backoff import jittery_clamped
from ..workers.current_job import executing
from ..workers.options import timeout_seconds
from ..workers.outcomes import Cancel, Record, Snooze
from ..workers.registry import Registration, find, resolve
from .service import Emit

LONGEST_ERROR = 20_000
"""Characters of an error that are kept: as many from its beginning as from its end."""
LONGEST_DELAY = 100 * 365 * 86400.0

_COLUMNS = tuple(Job.__table__.columns.keys())


class Executor:
    """Runs the jobs of one instance."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._running: dict[asyncio.Task[Any], tuple[int, Job, bool]] = {}

    def cancel(self, id: int) -> None:
        """Tell a job that it is cancelled, and interrupt it if its worker wishes that."""
        for task, (running, own, interruptible) in list(self._running.items()):
            if running == id:
                tell_to_stop(own)
                if interruptible:
                    task.cancel()

    async def execute(self, job: Job, abandoned: Callable[[], bool]) -> Ack | None:
        """The outcome of an attempt. Whatever the worker raises is one, too.

        `None` if the task was cancelled because the job is `abandoned`: it is to be given back.
        """
        # The worker may change its job, or add it to a session, whose commit expires it: it gets a
        # copy, and the outcome is written by ours.
        own = _copy(job)
        token = executing.set(own)
        started = time.monotonic()
        task = asyncio.current_task()
        assert task is not None
        known = find(job.worker)
        self._running[task] = (job.id, own, known is not None and known.interruptible)
        try:
            self._emit("job_start", JobStart(job))
            worker: list[Any] = []
            try:
                ack = _success(job, await _perform(own, worker))
            except BaseException as error:
                if isinstance(error, asyncio.CancelledError) and abandoned():
                    return None
                ack = _failure(job, error, worker[0] if worker else None, own.cancelled())
                self._emit(
                    "job_exception", JobException(job, ack.state, *_times(job, started), error)
                )
            else:
                self._emit("job_stop", JobStop(job, ack.state, *_times(job, started)))
            return ack
        finally:
            del self._running[task]
            executing.reset(token)


async def _perform(job: Job, made: list[Any]) -> Any:
    registration = resolve(job.worker)
    if registration.has_timeout or registration.options.timeout is not None:
        made.append(registration.create())
        seconds = _limit(registration, made[0], job)
        try:
            async with asyncio.timeout(seconds) as limit:
                return await _process(registration, job, made)
        except TimeoutError as error:
            if not limit.expired():
                raise
            limited = f"{job.worker} timed out after {seconds:g} s"
            raise JobTimeoutError(limited) from error
    return await _process(registration, job, made)


async def _process(registration: Registration, job: Job, made: list[Any]) -> Any:
    def process() -> Any:
        if not made:
            made.append(registration.create())
        return made[0].process(job)

    if registration.asynchronous:
        return await process()
    # At a timeout nobody waits for the thread any more, which can't be stopped.
    result = await _in_thread(process, f"oban-job-{job.id}")
    # A plain function that returns a coroutine was async in disguise.
    return await result if isawaitable(result) else result


def _limit(registration: Registration, worker: Any, job: Job) -> float | None:
    chosen = worker.timeout if registration.has_timeout else registration.options.timeout
    seconds = chosen(job) if callable(chosen) else chosen
    return None if seconds is None else timeout_seconds(seconds)


async def _in_thread(function: Callable[[], Any], name: str) -> Any:
    # A daemon thread for each job: a pool would keep the process from its exit until all had ended.
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()
    context = contextvars.copy_context()

    def deliver(result: Any, error: BaseException | None) -> None:
        if not ended.done():
            ended.set_result((result, error))

    def run() -> None:
        try:
            result, error = context.run(function), None
        except BaseException as raised:
            result, error = None, raised
        # The loop may be closed: then the job was given back, and nobody waits for its outcome.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(deliver, result, error)

    threading.Thread(target=run, name=name, daemon=True).start()
    result, error = await ended
    if error is not None:
        raise error
    return result


def _success(job: Job, result: Any) -> Ack:
    match result:
        case Cancel(reason=reason):
            return _ack(job, JobState.CANCELLED, error=storable(str(reason)))
        case Snooze(seconds=seconds):
            delay = min(validation.delay("Snooze", seconds).total_seconds(), LONGEST_DELAY)
            count = {"snoozed": _snoozed(job) + 1}
            return _ack(job, JobState.SCHEDULED, delay=delay, spent=False, meta=count)
        case Record(value=value):
            meta = {"recorded": RECORDED_AS, "return": value}
            return _ack(job, JobState.COMPLETED, meta=meta)
        case _:
            return _ack(job, JobState.COMPLETED)


def _failure(job: Job, error: BaseException, worker: Any, cancelled: bool = False) -> Ack:
    if cancelled and isinstance(error, asyncio.CancelledError):
        return _ack(job, JobState.CANCELLED, error="cancelled while it ran")
    text = _describe(error)
    if cancelled:
        return _ack(job, JobState.CANCELLED, error=storable(text))
    if job.attempt >= job.max_attempts:
        return _ack(job, JobState.DISCARDED, error=storable(text))
    delay = jittery_clamped(job.attempt, job.max_attempts)
    if worker is not None:
        try:
            chosen = validation.delay("backoff", worker.backoff(_copy(job)))
            delay = min(chosen.total_seconds(), LONGEST_DELAY)
        except BaseException as wrong:
            text += f"\nbackoff() of the worker failed, so the default applies:\n{_describe(wrong)}"
    return _ack(job, JobState.RETRYABLE, delay=delay, error=storable(text))


def _describe(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except BaseException as wrong:
        # A SyntaxError with fields of the wrong type, for one.
        return f"{type(error).__name__}, of which no traceback can be made: {type(wrong).__name__}"


def _snoozed(job: Job) -> int:
    # It is the user's meta: anything may be there.
    count = job.meta.get("snoozed")
    return count if isinstance(count, int) else 0


def _copy(job: Job) -> Job:
    loaded = inspect(job).dict
    return detached({key: loaded[key] for key in _COLUMNS})


def _ack(job: Job, state: JobState, **outcome: Any) -> Ack:
    assert job.attempted_at is not None
    return Ack(job.id, job.attempt, job.attempted_at, state, **outcome)


def _times(job: Job, started: float) -> tuple[float, float]:
    assert job.attempted_at is not None
    waited = (job.attempted_at - job.scheduled_at).total_seconds()
    return time.monotonic() - started, waited


def storable(text: str) -> str:
    """The text as PostgreSQL can keep it: valid Unicode without NUL, and not too long."""
    if len(text) > LONGEST_ERROR:
        half = LONGEST_ERROR // 2
        left_out = len(text) - 2 * half
        text = f"{text[:half]}\n... {left_out} characters left out ...\n{text[-half:]}"
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()
