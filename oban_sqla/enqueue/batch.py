"""Jobs as the parameters of the one statement that inserts them, and announces them."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from ..models import Job, JobState
from ..models.instrumentation import values_of
from ..statements.announce import announcement
from ..statements.insert import records
from ..wakeups import Wakeup

# The event loop stands still while a batch is encoded, some microseconds for each job.
MOST_ROWS = 1_000
# One parameter has to stay far below the 256 MB that a jsonb array may hold.
MOST_CHARACTERS = 16_000_000
# Two statements that insert the same unique jobs don't wait for each other in a circle.
MOST_UNIQUE = 10_000

# The database schedules a job that names no time for now.
_NOW = datetime.min.replace(tzinfo=UTC)


class Batch(NamedTuple):
    """Jobs of one statement, encoded."""

    jobs: Sequence[Job]
    records: str
    wakeup: Wakeup

    @property
    def parameters(self) -> Mapping[str, str]:
        """Those of the statement."""
        return {"jobs": self.records, **announcement(self.wakeup)}


def encoded(jobs: Sequence[Job], most: int | None = None) -> Iterator[Batch]:
    """The batches of any number of jobs, each of `most` or `MOST_ROWS`.

    `ValueError` or `TypeError` for args, meta or tags that can't be stored.
    """
    most = most or MOST_ROWS
    for start in range(0, len(jobs), most):
        yield from _halved(jobs[start : start + most])


def wakeup(jobs: Sequence[Job]) -> Wakeup:
    """The queues that have work, and when the next job is due, once these new jobs are stored."""
    queues = set()
    due_at = None
    for job in jobs:
        # The instrumentation would take half of the time.
        values = values_of(job)
        if values["state"] is JobState.AVAILABLE:
            queues.add(values["queue"])
        elif values["state"] is JobState.SCHEDULED:
            at = values.get("scheduled_at") or _NOW
            due_at = at if due_at is None else min(due_at, at)
    return Wakeup(frozenset(queues), due_at)


def _halved(jobs: Sequence[Job]) -> Iterator[Batch]:
    text = records(jobs)
    if len(text) <= MOST_CHARACTERS or len(jobs) == 1:
        yield Batch(jobs, text, wakeup(jobs))
        return
    middle = len(jobs) // 2
    yield from _halved(jobs[:middle])
    yield from _halved(jobs[middle:])
