"""`process_job()`: call a worker's `process` without a database."""

import asyncio
from inspect import isawaitable
from typing import Any

from sqlalchemy import inspect

from ..clock import client_now
from ..models import Job, JobState, validation
from ..models.job import COLUMNS, detached
from ..models.notation import Reference
from ..models.references import InstanceReference, arguments, replaced, show_reference
from ..workers.current_job import executing
from ..workers.outcomes import refuse_class
from ..workers.registry import Registration, resolve
from .joined import run


def process_job(job: Job, *, session: Any = None) -> Any:
    """Call the worker of a job and return its result, for unit tests without a database::

        assert await process_job(WelcomeEmail.new({"email": "x@example.com"})) == Cancel("...")

    Errors of the worker are raised. Await the call in a test that runs on an event loop; in other
    tests it returns the result at once. `process` is called in this thread, with a copy of the job
    as in its first attempt, or in attempt `n` if you set `job.attempt = n`. Mapped instances in the
    arguments are passed as they are, and the method of a model is called on its instance. No
    timeout applies.

    session: the session for a worker that takes one. It is neither flushed nor committed.

    `TypeError` or `ValueError` for arguments that the database could not store, for a missing or
    superfluous session, and if the worker returns the class of an outcome, or an exception.
    `UnknownWorkerError` if the worker is not imported.
    """
    if not isinstance(job, Job):
        raise TypeError(f"process_job takes a job, Worker.new({{...}}), not {validation.show(job)}")
    registration = resolve(job.worker)
    _check_session(job, registration, session)
    work = _process(registration, _attempted(job), session)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return run(work)
    return work


async def _process(registration: Registration, job: Job, session: Any) -> Any:
    worker = registration.processor(job)
    token = executing.set(job)
    try:
        given = {"session": session} if registration.takes_session else {}
        result = worker.process(job, **given)
        if isawaitable(result):
            result = await result
    finally:
        executing.reset(token)
    _check_result(job, result)
    return result


def _attempted(job: Job) -> Job:
    """A copy of the job as its worker would get it, as if it had been stored and claimed."""
    now = client_now()
    values: dict[str, Any] = dict.fromkeys(COLUMNS)
    values |= {"id": 1, "inserted_at": now, "scheduled_at": now}
    values |= {key: value for key, value in inspect(job).dict.items() if key in COLUMNS}
    values["args"] = replaced(arguments("args", values["args"]), _instance)
    values["meta"] = validation.json_object("meta", values["meta"])
    values["state"] = JobState.EXECUTING
    values["attempt"] = max(values["attempt"], 1)
    values["attempted_at"] = values["attempted_at"] or max(now, values["scheduled_at"])
    values["attempted_by"] = values["attempted_by"] or ["testing"]
    return detached(values)


def _instance(reference: Reference) -> object:
    if not isinstance(reference, InstanceReference):
        raise TypeError(
            f"the job refers to {show_reference(reference)}, but process_job has no database to"
            " load it from: build the job with the instance"
        )
    return reference.instance


def _check_session(job: Job, registration: Registration, session: Any) -> None:
    if registration.takes_session and session is None:
        raise TypeError(
            f"{job.worker} takes a session: process_job(job, session=...), with yours or a mock"
        )
    if session is not None and not registration.takes_session:
        raise TypeError(f"{job.worker} takes no session: its process() has no such parameter")


def _check_result(job: Job, result: Any) -> None:
    refuse_class(job.worker, result)
    if isinstance(result, BaseException):
        raise TypeError(
            f"{job.worker} returned {result!r}, which would complete the job: raise it instead"
        )
