"""Check whether a claimed job has missed its deadline, and must not begin any more."""

from datetime import datetime, timedelta

from ..models import Job
from ..models.deadline import own_deadline
from ..workers.registry import find


def missed(job: Job) -> datetime | None:
    """The missed deadline of a job, its own or that of its worker; `None` if it is not missed.

    The database's clock decides. The deadline only applies to the first attempt.
    """
    known = find(job.worker)
    deadline = known.declaration.deadline if known is not None else None
    if job.meta and (own := own_deadline(job.meta)) is not None:
        deadline = own
    if deadline is None or job.attempt > 1 or job.attempted_at is None:
        return None
    instant = _instant(deadline, job.scheduled_at)
    return instant if instant is not None and job.attempted_at > instant else None


def _instant(deadline: datetime | float, scheduled_at: datetime | None) -> datetime | None:
    """The instant of a deadline; `None` if Python can't represent it."""
    if isinstance(deadline, datetime):
        return deadline
    if scheduled_at is None:
        return None
    try:
        return scheduled_at + timedelta(seconds=deadline)
    except OverflowError:
        return None
