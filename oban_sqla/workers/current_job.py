"""The job that is being processed, known anywhere below `process`."""

from contextvars import ContextVar

from ..errors import JobNotFoundError
from ..models import Job

executing: ContextVar[Job | None] = ContextVar("oban_sqla_current_job", default=None)


def current_job() -> Job | None:
    """The job whose worker is calling, in its thread and its tasks too; `None` outside of one."""
    return executing.get()


def running_job() -> Job:
    """The job of `current_job()`; `JobNotFoundError` outside of one."""
    job = executing.get()
    if job is None:
        raise JobNotFoundError("no job is processed here; current_job() returns None instead")
    return job
