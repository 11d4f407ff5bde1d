"""The job that is being processed, known anywhere below `process`."""

from contextvars import ContextVar

from ..models import Job

executing: ContextVar[Job | None] = ContextVar("oban_sqla_current_job", default=None)


def current_job() -> Job | None:
    """The job whose worker is calling, in its thread and its tasks too; `None` outside of one."""
    return executing.get()
