"""Perform an attempt: call the worker on the event loop or in a thread, within its timeout."""

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from inspect import isawaitable
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from ..errors import JobTimeoutError
from ..models.instrumentation import values_of
from ..models.job import give_results
from ..workers.timeout import timeout_seconds
from .attempt import Attempt
from .connecting import CancelledUnconnected, UnconnectedError, connecting
from .database import Database
from .following import results
from .references import loader
from .session_threads import session_threads
from .worker_session import WorkerSessions, transact, transact_plainly

# Seconds in which a worker must end after its timeout has cancelled it, or it is left behind.
UNWINDING = 5.0


async def perform(attempt: Attempt, sessions: WorkerSessions) -> Any:
    """Call the worker, and return its result, or raise its error.

    If the worker has used its session, the `Written` outcome is returned instead.

    `JobTimeoutError` if the worker takes too long. If a worker returns although its task was
    cancelled, at the timeout or because the job was cancelled, its result counts.
    """
    registration = attempt.registration
    if registration.interruptible and attempt.cancelled:
        attempt.interrupted = True
        raise asyncio.CancelledError
    seconds = _timeout(attempt)
    process = _transact if registration.takes_session else _process
    if attempt.followed:
        give_results(attempt.own, partial(results, database=sessions))
    if registration.provided:
        process = partial(_provided, process)
    work = process(attempt, sessions)
    if seconds is not None:
        return await _limited(attempt, work, seconds)
    if registration.interruptible:
        return await _interruptible(attempt, work)
    return await work


async def absorb_cancellation() -> None:
    """Take a cancellation of this task that is requested, but not raised yet.

    A worker may cancel its own task and return. asyncio would then drop the result of the task.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)


Work = Coroutine[Any, Any, Any]
Process = Callable[[Attempt, WorkerSessions], Work]


async def _provided(process: Process, attempt: Attempt, sessions: WorkerSessions) -> Any:
    """Process a job after loading the values that features provide for it."""
    job = attempt.own
    values = {}
    for name, provided in attempt.registration.provided.items():
        rows = await sessions.fetch(*provided.question(job))
        values[name] = provided.answer(job, rows)
    if values:
        # Bypasses the checks of `args`: provided values need not be JSON.
        values_of(job)["args"] = {**job.args, **values}
    return await process(attempt, sessions)


async def _process(attempt: Attempt, sessions: WorkerSessions) -> Any:
    job = attempt.own
    if load := loader(attempt):
        async with sessions.worker_session() as session, connecting(session):
            gone = await session.run_sync(load)
            if gone is not None:
                return gone

    def process() -> Any:
        return attempt.registration.hooks.process(attempt.take_worker(), job)

    asynchronous = attempt.registration.asynchronous
    result = process() if asynchronous else await _in_thread(process, attempt)
    # A sync function may return a coroutine, for example a partial of an async function.
    return await result if isawaitable(result) else result


async def _transact(attempt: Attempt, sessions: WorkerSessions) -> Any:
    job = attempt.own
    load = loader(attempt)

    def process(session: Any) -> Any:
        hooks = attempt.registration.hooks
        return hooks.process(attempt.take_worker(), job, session=session)

    async def process_async(session: AsyncSession) -> Any:
        gone = await session.run_sync(load) if load else None
        result = process(session) if gone is None else gone
        return await result if isawaitable(result) else result

    def process_sync(session: Session) -> Any:
        gone = load(session) if load else None
        return process(session) if gone is None else gone

    if attempt.registration.asynchronous:
        return await transact(attempt, sessions, process_async)
    if not isinstance(sessions, Database):
        # The transaction of a test, which no other thread may use.
        return await transact_plainly(attempt, sessions, process_sync)
    ended = session_threads(sessions).start(
        sessions, lambda apart: transact_plainly(attempt, apart, process_sync), f"oban-job-{job.id}"
    )
    return await _heard(ended, attempt)


async def _in_thread(function: Callable[[], Any], attempt: Attempt) -> Any:
    # A daemon thread for each job. The threads of a pool would delay the exit of the process.
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
        # If the event loop is closed, the job was given back, and its outcome is not needed.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(deliver, result, error)

    threading.Thread(target=run, name=f"oban-job-{attempt.id}", daemon=True).start()
    return await _heard(ended, attempt)


async def _heard(
    ended: "asyncio.Future[tuple[Any, BaseException | None]]", attempt: Attempt
) -> Any:
    """Wait for the result or the error of a thread. If cancelled, the thread is left behind."""
    try:
        result, error = await asyncio.shield(ended)
    except asyncio.CancelledError:
        if not ended.done():
            attempt.left_behind = ended
        raise
    if error is not None:
        raise error
    return result


async def _interruptible(attempt: Attempt, work: Work) -> Any:
    attempt.interruptible_by(asyncio.current_task())
    try:
        return await work
    finally:
        attempt.interruptible_by(None)


def _timeout(attempt: Attempt) -> float | None:
    job, registration = attempt.own, attempt.registration
    chosen: Any = registration.declaration.timeout
    if registration.has_timeout:
        attempt.worker = registration.create()
        chosen = attempt.worker.timeout(job)
    elif callable(chosen):
        chosen = chosen(job)
    return None if chosen is None else timeout_seconds(chosen, f"timeout of {job.worker}")


async def _limited(attempt: Attempt, work: Work, seconds: float) -> Any:
    # A separate task, which can be left behind if it does not end.
    task = asyncio.create_task(_caught(work), name=f"oban-limited-job-{attempt.id}")
    if attempt.registration.interruptible:
        attempt.interruptible_by(task)
    try:
        await asyncio.wait([task], timeout=seconds)
        if task.done():
            return _returned(*task.result())
        task.cancel()
        await asyncio.wait([task], timeout=UNWINDING)
    except asyncio.CancelledError:
        # The job is abandoned or cancelled. The inner task is cancelled, and decides the outcome.
        task.cancel()
        return _returned(*await task)
    finally:
        attempt.interruptible_by(None)
    return _after_timeout(attempt, task, seconds)


def _after_timeout(attempt: Attempt, task: "Caught", seconds: float) -> Any:
    """The result of a task that returned after its timeout, or else the error to raise."""
    message = f"{attempt.job.worker} timed out after {seconds:g} s"
    if not task.done():
        attempt.left_behind = task
        late = f"and was cancelled, but has not stopped {UNWINDING:g} s later"
        raise JobTimeoutError(f"{message} {late}")
    result, error = task.result()
    if error is None:
        return result
    if isinstance(error, CancelledUnconnected):
        raise UnconnectedError(
            f"no connection within the job's timeout of {seconds:g} s"
        ) from error
    # The error shows where an async worker was. For a thread it would only show our own wait.
    raise JobTimeoutError(message) from (error if attempt.registration.asynchronous else None)


Caught = asyncio.Task[tuple[Any, BaseException | None]]


async def _caught(work: Work) -> tuple[Any, BaseException | None]:
    # A task that raises SystemExit would end the event loop.
    try:
        return await work, None
    except BaseException as error:
        return None, error
    finally:
        await absorb_cancellation()


def _returned(result: Any, error: BaseException | None) -> Any:
    if error is not None:
        raise error
    return result
