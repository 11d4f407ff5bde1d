"""`Search`: where to search for jobs without limits in a queue that also has limited jobs."""

import math
import time
from collections.abc import Iterable
from datetime import datetime, timedelta

from ..statements.claimed import Claimed

PRIORITIES = 10
SHARE = 10.0
"""Searches from the front take at most one tenth of the time. Searches after news do, too."""
LONGEST = 1.0
"""Seconds after which a search begins at the front in any case."""
MARGIN = timedelta(seconds=2)
"""If the transaction of a new job takes longer than this, a search from the front finds the job."""

FRONT = None
"""The position before all jobs, since Python can't represent PostgreSQL's `-infinity`."""


class Search:
    """The position at which the next search begins, for each priority.

    A search reads and skips all limited jobs, which may be many. So it begins behind the last job
    that was found, or, if all jobs were found, at the time of that search. A new job may be due a
    little earlier, since its transaction took some time: after news, a search begins `MARGIN`
    earlier. Jobs that get an earlier position, by a retry or a rescue, are found by searches from
    the front.
    """

    def __init__(self) -> None:
        self._since: list[datetime | None] = [FRONT] * PRIORITIES
        self.after = [0] * PRIORITIES
        """The ids behind which to search at these instants, by priority."""
        self._from_front = True
        self._front_at = -math.inf
        # The time of the last search, if it found all jobs.
        self._complete_at: datetime | None = None
        self._news = False
        self._recent = True
        self._recent_at = -math.inf

    def news(self) -> None:
        """Note that there may be new jobs, which may be due before the last search."""
        self._news = True

    def since(self) -> list[datetime | None]:
        """The instants from which to search, by priority; `FRONT` is None."""
        now = time.monotonic()
        self._from_front = self._front_at <= now
        self._recent = self._from_front or (self._news and self._recent_at <= now)
        if self._recent:
            self._news = False
        if self._from_front:
            self._since, self.after = [FRONT] * PRIORITIES, [0] * PRIORITIES
            self._front_at = now + LONGEST
        elif self._complete_at is not None:
            at: datetime | None = self._complete_at - (MARGIN if self._recent else timedelta())
            self._since, self.after = [at] * PRIORITIES, [0] * PRIORITIES
        return self._since

    @property
    def again_in(self) -> float:
        """Seconds until another search finds jobs that the last search has skipped."""
        if self._from_front:
            return math.inf
        at = min(self._front_at, self._recent_at) if self._news else self._front_at
        return max(0.0, at - time.monotonic())

    def found(self, jobs: Iterable[Claimed], complete_at: datetime | None, duration: float) -> None:
        """Note the jobs that a search found, and its time if it found all jobs."""
        # Without the id: a job that was locked may be at the same instant.
        positions = (
            (job.priority, job.scheduled_at, 0) for job in jobs if job.scheduled_at is not None
        )
        self.passed(positions, complete_at, duration)

    def passed(
        self,
        positions: Iterable[tuple[int, datetime, int]],
        complete_at: datetime | None,
        duration: float,
    ) -> None:
        """`found`, for the priorities, instants and ids of jobs, in this order."""
        again_at = time.monotonic() + SHARE * duration
        if self._from_front:
            self._front_at = max(self._front_at, again_at)
        if self._recent:
            self._recent_at = again_at
        self._complete_at = complete_at and complete_at.replace(tzinfo=None)
        if complete_at is None:
            for priority, scheduled_at, id in positions:
                if 0 <= priority < PRIORITIES:
                    self._since[priority], self.after[priority] = scheduled_at, id
