"""The job of the running worker, for any code that `process` calls."""

from contextvars import ContextVar

from ..errors import JobNotFoundError
from ..models import Job

executing: ContextVar[Job | None] = ContextVar("oban_sqla_current_job", default=None)


def current_job() -> Job | None:
    """The job that the caller's worker processes, also in its threads and tasks; else `None`."""
    return executing.get()


def running_job() -> Job:
    """The job that the caller's worker processes; `JobNotFoundError` outside of a worker."""
    job = executing.get()
    if job is None:
        raise JobNotFoundError("no job is processed here; current_job() returns None instead")
    return job
