"""The search for jobs without limits, in a queue in which others have limits."""

import time
from collections.abc import Iterable
from datetime import datetime, timedelta

from ..statements.claimed import Claimed

PRIORITIES = 10
SHARE = 10.0
"""A search from the front takes at most one part in so many of the time."""
LONGEST = 1.0
"""Seconds after which a search begins at the front in any case."""
MARGIN = timedelta(seconds=2)
"""How long the transaction of a new job may take without the job being found late."""

FRONT = datetime.min


class Search:
    """Where the next search begins, in each priority.

    A search passes over every job with a limit, which may be many. So it begins behind the last
    job that it found, or, if it found all, a little before it looked: a new job is due later. What
    comes to stand before that, by a retry or a rescue, is found from the front.
    """

    def __init__(self) -> None:
        self._since = [FRONT] * PRIORITIES
        self._from_front = True
        self._looked_at = 0.0
        self._cost = 0.0

    def since(self) -> list[datetime]:
        """The instants from which to search, by priority."""
        now = time.monotonic()
        self._from_front = now - self._looked_at >= max(LONGEST, SHARE * self._cost)
        if self._from_front:
            self._since = [FRONT] * PRIORITIES
            self._looked_at = now
        return self._since

    def found(self, jobs: Iterable[Claimed], complete_at: datetime | None, duration: float) -> None:
        """Note the jobs that a search found, and when it looked, if none was left then."""
        if self._from_front:
            self._cost = duration
        if complete_at is not None:
            self._since = [complete_at.replace(tzinfo=None) - MARGIN] * PRIORITIES
            return
        for job in jobs:
            if job.scheduled_at is not None and 0 <= job.priority < PRIORITIES:
                self._since[job.priority] = job.scheduled_at
