"""`frozen_time()`: hold the library's clock."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from ..clock import held
from ..models import validation


@contextmanager
def frozen_time(at: datetime) -> Iterator[datetime]:
    """Hold the library's clock at an instant, which the block gets in UTC::

        with frozen_time(datetime(2026, 11, 1, tzinfo=UTC)) as now:
            await Remind.enqueue({"id": 1}, conn=session, schedule_in=timedelta(days=1))
        with frozen_time(now + timedelta(days=1)):
            await drain_queue(session)  # it is due

    `schedule_in` counts from there, `Job.is_due` asks it, and draining takes it for the time: what
    is due by then runs, and attempts, outcomes and backoffs are dated by it. It is the clock of the
    whole process, for all threads. A started `Oban` goes on by the clock of its database.
    """
    instant = validation.instant("at", at)
    with held(instant):
        yield instant
