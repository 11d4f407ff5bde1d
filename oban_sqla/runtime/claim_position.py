"""`ClaimPosition`: the next claim of a queue starts behind the last claim, or at the front."""

import time
from datetime import datetime
from typing import Any

from ..statements.claim import FRONT
from ..statements.claimed import Claimed

SHARE = 10.0
"""Claims from the front take at most one tenth of the time."""
LONGEST = 1.0
"""Seconds after which a claim starts at the front even without news."""


class ClaimPosition:
    """The position of the last claimed job in the order of claims.

    While any transaction is open, the index keeps dead entries of all jobs that were claimed since.
    A claim from the front reads all of them. A claim behind the last claim reads none. Some jobs
    become available before that position: a retry, a rescue, a higher priority, a job of a long
    transaction. Claims from the front find them: at once if a claim was not full, otherwise soon
    after the news.
    """

    def __init__(self) -> None:
        self._last: tuple[int, datetime, int] | None = None
        self._from_front = True
        self._news = False
        self._front_at = 0.0
        self._cost = 0.0

    def news(self) -> None:
        """Note that there may be new jobs at any position."""
        self._news = True

    def next(self) -> dict[str, Any]:
        """The parameters with which the next claim starts."""
        now = time.monotonic()
        since = now - self._front_at
        due = since >= LONGEST or self._news
        self._from_front = self._last is None or (due and since >= SHARE * self._cost)
        if self._from_front or self._last is None:
            self._news = False
            self._front_at = now
            return FRONT
        priority, scheduled_at, id = self._last
        return {"after_priority": priority, "after_scheduled_at": scheduled_at, "after_id": id}

    def claimed(self, jobs: list[Claimed], *, full: bool, duration: float) -> None:
        """Note the result of a claim, and the seconds that it took."""
        if self._from_front:
            self._cost = duration
        last = jobs[-1] if full and jobs else None
        if last is None or (scheduled_at := last.scheduled_at) is None:
            self._last = None
        else:
            self._last = last.priority, scheduled_at, last.id

    @property
    def at_front(self) -> bool:
        """Whether the last claim started at the front."""
        return self._from_front
