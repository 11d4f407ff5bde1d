"""Perform an attempt: on the loop or in a thread, and for no longer than its timeout."""

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
from ..models import Job
from ..statements.acknowledge import Ack
from ..workers.registry import Registration, resolve
from ..workers.timeout import timeout_seconds
from .attempt import Attempt
from .connecting import CancelledUnconnected, UnconnectedError, connecting
from .database import Database
from .references import loader
from .session_threads import session_threads
from .worker_session import WorkerSessions, transact, transact_plainly

# How long a worker that was cancelled at its timeout may take to unwind before it is left behind.
UNWINDING = 5.0

Outcome = Callable[[Any], Ack]
"""The outcome of what a worker has returned."""


async def perform(
    attempt: Attempt, made: list[Any], *, sessions: WorkerSessions, outcome: Outcome
) -> Any:
    """What the worker returns; it is `made` on the way. Whatever it raises is raised.

    If it has used a session of ours, the `Written` outcome of what it returns.

    `JobTimeoutError` when it takes too long. What it returns in spite of its cancellation, then or
    because the job was cancelled, counts: the work is done.
    """
    registration = resolve(attempt.own.worker)
    if registration.interruptible and attempt.cancelled:
        attempt.interrupted = True
        raise asyncio.CancelledError
    seconds = _timeout(registration, attempt.own, made)
    process = partial(_process, registration, attempt, made, sessions)
    if registration.takes_session:
        process = partial(_transact, registration, attempt, made, sessions, outcome)
    if seconds is not None:
        return await _limited(attempt, registration, process, seconds)
    if registration.interruptible:
        return await _interruptible(attempt, process)
    return await process()


Process = Callable[[], Coroutine[Any, Any, Any]]


async def _process(
    registration: Registration, attempt: Attempt, made: list[Any], sessions: WorkerSessions
) -> Any:
    job = attempt.own
    if load := loader(registration, job):
        async with sessions.worker_session() as session, connecting(session):
            gone = await session.run_sync(load)
            if gone is not None:
                return gone

    def process() -> Any:
        if not made or registration.is_model:
            made[:] = [registration.processor(job)]
        return made[0].process(job)

    if registration.asynchronous:
        return await process()
    result = await _in_thread(process, attempt)
    # A plain function that returns a coroutine was async in disguise.
    return await result if isawaitable(result) else result


async def _transact(
    registration: Registration,
    attempt: Attempt,
    made: list[Any],
    sessions: WorkerSessions,
    outcome: Outcome,
) -> Any:
    job = attempt.own
    tried = False
    load = loader(registration, job)

    def process(session: Any) -> Any:
        nonlocal tried
        if registration.is_model or tried or not made:
            made[:] = [registration.processor(job)]
        tried = True
        return made[0].process(job, session=session)

    async def process_async(session: AsyncSession) -> Any:
        gone = await session.run_sync(load) if load else None
        return await process(session) if gone is None else gone

    def process_sync(session: Session) -> Any:
        gone = load(session) if load else None
        return process(session) if gone is None else gone

    if registration.asynchronous:
        return await transact(sessions, process_async, outcome)
    if not isinstance(sessions, Database):
        # The transaction of a test, which no other thread sees.
        return await transact_plainly(sessions, process_sync, outcome)
    ended = session_threads(sessions).start(
        sessions, lambda apart: transact_plainly(apart, process_sync, outcome), f"oban-job-{job.id}"
    )
    return await _heard(ended, attempt)


async def _in_thread(function: Callable[[], Any], attempt: Attempt) -> Any:
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

    threading.Thread(target=run, name=f"oban-job-{attempt.id}", daemon=True).start()
    return await _heard(ended, attempt)


async def _heard(
    ended: "asyncio.Future[tuple[Any, BaseException | None]]", attempt: Attempt
) -> Any:
    """What comes of a thread; one that is not waited for any more is left behind."""
    try:
        result, error = await asyncio.shield(ended)
    except asyncio.CancelledError:
        if not ended.done():
            attempt.left_behind = ended
        raise
    if error is not None:
        raise error
    return result


async def _interruptible(attempt: Attempt, process: Process) -> Any:
    attempt.interruptible_by(asyncio.current_task())
    try:
        return await process()
    finally:
        attempt.interruptible_by(None)


def _timeout(registration: Registration, job: Job, made: list[Any]) -> float | None:
    chosen: Any = registration.options.timeout
    if registration.has_timeout:
        made.append(registration.create())
        chosen = made[0].timeout(job)
    elif callable(chosen):
        chosen = chosen(job)
    return None if chosen is None else timeout_seconds(chosen, f"timeout of {job.worker}")


async def _limited(
    attempt: Attempt, registration: Registration, process: Process, seconds: float
) -> Any:
    # A task of its own, so that one which does not end can be left behind.
    task = asyncio.create_task(_caught(process), name=f"oban-limited-job-{attempt.id}")
    if registration.interruptible:
        attempt.interruptible_by(task)
    try:
        await asyncio.wait([task], timeout=seconds)
        expired = not task.done()
        if expired:
            task.cancel()
            await asyncio.wait([task], timeout=UNWINDING)
    except asyncio.CancelledError:
        # Abandoned: it is cancelled in turn, and what comes of it then is what comes of us.
        task.cancel()
        return _returned(*await task)
    finally:
        attempt.interruptible_by(None)
    if not task.done():
        attempt.left_behind = task
        late = f" and was cancelled, but has not stopped {UNWINDING:g} s later"
        raise JobTimeoutError(f"{attempt.job.worker} timed out after {seconds:g} s{late}")
    if not expired:
        return _returned(*task.result())
    try:
        return _returned(*task.result())
    except CancelledUnconnected as error:
        raise UnconnectedError(
            f"no connection within the job's timeout of {seconds:g} s"
        ) from error
    except BaseException as error:
        # Where an async worker was then; of a thread it would only tell that we waited for it.
        cause = error if registration.asynchronous else None
        message = f"{attempt.job.worker} timed out after {seconds:g} s"
        raise JobTimeoutError(message) from cause


async def _caught(process: Process) -> tuple[Any, BaseException | None]:
    # A task that ends with a SystemExit would end the loop.
    try:
        return await process(), None
    except BaseException as error:
        return None, error


def _returned(result: Any, error: BaseException | None) -> Any:
    if error is not None:
        raise error
    return result
