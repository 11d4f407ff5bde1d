"""Read the ids of jobs from what a caller passes, without I/O."""

from collections.abc import Iterable

from sqlalchemy import inspect

from . import validation
from .job import Job

LARGEST_ID = 2**63 - 1


def identity(job: Job) -> int | None:
    """The id of a job, without the SELECT that `job.id` sends for an expired job."""
    state = inspect(job)
    return state.identity[0] if state.identity else state.dict.get("id")


def job_or_id(given: object) -> Job | int:
    """Check that a value is a job or an id; `TypeError` or `ValueError` if it is neither."""
    if isinstance(given, Job):
        return given
    if not isinstance(given, int) or isinstance(given, bool):
        raise TypeError(
            "which must be a Job, an id, an iterable of jobs or ids, or select(Job).where(...),"
            f" not {validation.show(given)}"
        )
    if not 0 < given <= LARGEST_ID:
        raise ValueError(f"no job has the id {validation.show(given)}")
    return int(given)


def ids_of(given: Iterable[Job | int]) -> list[int]:
    """The ids of jobs, each once; `ValueError` for a job without one."""
    return list(dict.fromkeys(_id_of(one) for one in given))


def _id_of(given: Job | int) -> int:
    id = given if isinstance(given, int) else identity(given)
    if id is None:
        raise ValueError(f"{given!r} has no id: it was not enqueued, or not flushed")
    return id
