"""`frozen_time()`: hold the library's clock."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from ..clock import held
from ..models import validation


@contextmanager
def frozen_time(at: datetime) -> Iterator[datetime]:
    """Hold the library's clock at an instant for a block, which gets the instant in UTC::

        with frozen_time(datetime(2026, 11, 1, tzinfo=UTC)) as now:
            await Remind.enqueue({"id": 1}, conn=session, schedule_in=timedelta(days=1))
        with frozen_time(now + timedelta(days=1)):
            await drain_queue(session)  # it is due

    `schedule_in`, `Job.is_due` and `drain_queue` use this clock: draining runs the jobs that are
    due at the instant, and attempts, outcomes and backoffs get its time. The clock is the same for
    all threads of the process. A started `Oban` still uses the clock of its database.
    """
    instant = validation.instant("at", at)
    with held(instant):
        yield instant
