"""Encode jobs as the parameters of the statement that inserts and announces them."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from ..models import Job, JobState
from ..models.chain import ENTRY
from ..models.instrumentation import values_of
from ..statements.announce import announcement, only_notification
from ..statements.execute import Make, Parameters
from ..statements.insert import insert, records
from ..statements.insert_few import FEW, insert_few
from ..statements.insert_one import fits, insert_one, parameters
from ..wakeups import Wakeup
from .gc_pause import paused

# Encoding a batch blocks the event loop for some microseconds per job.
MOST_ROWS = 1_000
# A parameter must be much smaller than 256 MB, the limit of a jsonb array.
MOST_CHARACTERS = 16_000_000
# Larger than MOST_ROWS: within one statement, unique jobs are inserted in the order of their keys,
# so that two statements can't deadlock.
MOST_UNIQUE = 10_000

# Stands for a job without `scheduled_at`, which the database schedules for now.
_NOW = datetime.min.replace(tzinfo=UTC)


class Batch(NamedTuple):
    """The encoded jobs of one statement."""

    jobs: Sequence[Job]
    wakeup: Wakeup
    make: Make
    parameters: Parameters


def encoded(jobs: Sequence[Job], most: int | None = None) -> Iterator[Batch]:
    """Encode any number of jobs in batches of at most `most`, by default `MOST_ROWS`.

    Jobs of several chains come in the order of their chains. So all transactions lock chains in the
    same order, and can't deadlock.

    `ValueError` or `TypeError` for args, meta or tags that can't be stored.
    """
    most = most or MOST_ROWS
    if len({*map(_chain, jobs)} - {""}) > 1:
        jobs = sorted(jobs, key=_chain)
    for start in range(0, len(jobs), most):
        yield from _halved(jobs[start : start + most])


def _chain(job: Job) -> str:
    meta = values_of(job)["meta"]
    return str(meta[ENTRY]) if meta and ENTRY in meta else ""


def wakeup(jobs: Sequence[Job]) -> Wakeup:
    """The queues of these new jobs, and the time when the first scheduled job is due."""
    queues = set()
    due_at = None
    for job in jobs:
        # `values_of` bypasses the instrumentation, which would take half of the time.
        values = values_of(job)
        if values["state"] is JobState.AVAILABLE:
            queues.add(values["queue"])
        elif values["state"] is JobState.SCHEDULED:
            at = values.get("scheduled_at") or _NOW
            due_at = at if due_at is None else min(due_at, at)
    return Wakeup(frozenset(queues), due_at)


def _batch(jobs: Sequence[Job], text: str) -> Batch:
    news = wakeup(jobs)
    if len(jobs) <= FEW and (notification := only_notification(news)):
        return Batch(jobs, news, insert_few, {"jobs": text, **notification})
    return Batch(jobs, news, insert, {"jobs": text, **announcement(news)})


def _halved(jobs: Sequence[Job]) -> Iterator[Batch]:
    if len(jobs) == 1 and fits(jobs[0]):
        yield Batch(jobs, wakeup(jobs), insert_one, parameters(jobs[0]))
        return
    with paused(len(jobs)):
        text = records(jobs)
    if len(text) <= MOST_CHARACTERS or len(jobs) == 1:
        yield _batch(jobs, text)
        return
    middle = len(jobs) // 2
    yield from _halved(jobs[:middle])
    yield from _halved(jobs[middle:])
