"""`Search`: where to look for jobs without limits in a queue that also has limited jobs."""

import math
import time
from collections.abc import Iterable
from datetime import datetime, timedelta

from ..statements.claimed import Claimed

PRIORITIES = 10
SHARE = 10.0
"""Searches from the front take at most one tenth of the time."""
LONGEST = 1.0
"""Seconds after which a search begins at the front in any case."""
MARGIN = timedelta(seconds=2)
"""If the transaction of a new job takes longer than this, the job is found later."""

FRONT = None
"""Before all jobs: Python has no word for PostgreSQL's `-infinity`."""


class Search:
    """The position at which the next search begins, for each priority.

    A search passes over all limited jobs, which may be many. So it begins behind the last job that
    was found. If all jobs were found, it begins a little before the time of that search, since new
    jobs are due later. Jobs that get an earlier position, by a retry or a rescue, are found by
    searches from the front.
    """

    def __init__(self) -> None:
        self._since: list[datetime | None] = [FRONT] * PRIORITIES
        self.after = [0] * PRIORITIES
        """The ids behind which to search at these instants, by priority."""
        self._from_front = True
        self._looked_at = -math.inf
        self._cost = 0.0

    def since(self) -> list[datetime | None]:
        """The instants from which to search, by priority; `FRONT` is None."""
        self._from_front = self._front_in <= 0
        if self._from_front:
            self._since, self.after = [FRONT] * PRIORITIES, [0] * PRIORITIES
            self._looked_at = time.monotonic()
        return self._since

    @property
    def look_in(self) -> float:
        """Seconds until a search from the front finds jobs that the last search has passed over."""
        return math.inf if self._from_front else max(0.0, self._front_in)

    @property
    def _front_in(self) -> float:
        return self._looked_at + max(LONGEST, SHARE * self._cost) - time.monotonic()

    def found(self, jobs: Iterable[Claimed], complete_at: datetime | None, duration: float) -> None:
        """Note the jobs that a search found, and its time if it found all jobs."""
        # Without the id: a job that was locked may be at the same instant.
        places = (
            (job.priority, job.scheduled_at, 0) for job in jobs if job.scheduled_at is not None
        )
        self.passed(places, complete_at, duration)

    def passed(
        self,
        places: Iterable[tuple[int, datetime, int]],
        complete_at: datetime | None,
        duration: float,
    ) -> None:
        """`found`, for the priorities, instants and ids of jobs, in this order."""
        if self._from_front:
            self._cost = duration
        if complete_at is not None:
            self._since = [complete_at.replace(tzinfo=None) - MARGIN] * PRIORITIES
            self.after = [0] * PRIORITIES
            return
        for priority, scheduled_at, id in places:
            if 0 <= priority < PRIORITIES:
                self._since[priority], self.after[priority] = scheduled_at, id
