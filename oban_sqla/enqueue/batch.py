"""Jobs as the parameters of the one statement that inserts them, and announces them."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from ..models import Job, JobState
from ..statements.announce import announcement
from ..statements.insert import records
from ..wakeups import Wakeup

# One parameter has to stay far below the 256 MB that a jsonb array may hold.
MOST_ROWS = 10_000
MOST_CHARACTERS = 16_000_000

# The database schedules a job that names no time for now.
_NOW = datetime.min.replace(tzinfo=UTC)


class Batch(NamedTuple):
    """Jobs of one statement, encoded."""

    jobs: Sequence[Job]
    parameters: Mapping[str, str]


def encoded(jobs: Sequence[Job]) -> Iterator[Batch]:
    """The batches of any number of jobs.

    `ValueError` or `TypeError` for args, meta or tags that can't be stored.
    """
    for start in range(0, len(jobs), MOST_ROWS):
        yield from _halved(jobs[start : start + MOST_ROWS])


def wakeup(jobs: Sequence[Job]) -> Wakeup:
    """The queues that have work, and when the next job is due, once these new jobs are stored."""
    queues = set()
    due_at = None
    for job in jobs:
        # The instrumentation would take half of the time.
        values = vars(job)
        if values["state"] is JobState.AVAILABLE:
            queues.add(values["queue"])
        elif values["state"] is JobState.SCHEDULED:
            at = values.get("scheduled_at") or _NOW
            due_at = at if due_at is None else min(due_at, at)
    return Wakeup(frozenset(queues), due_at)


def _halved(jobs: Sequence[Job]) -> Iterator[Batch]:
    text = records(jobs)
    if len(text) <= MOST_CHARACTERS or len(jobs) == 1:
        yield Batch(jobs, {"jobs": text, **announcement(wakeup(jobs))})
        return
    middle = len(jobs) // 2
    yield from _halved(jobs[:middle])
    yield from _halved(jobs[middle:])
