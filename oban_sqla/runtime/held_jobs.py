"""Held jobs: those that a producer has claimed and not started."""

import math
import time
from collections import deque
from collections.abc import Iterable

from ..statements.claimed import Claimed


class HeldJobs:
    """Jobs that wait for their turn, in the order of their claim, and those that go back."""

    def __init__(self, longest: float) -> None:
        """`longest`: the seconds after which a job whose turn did not come goes back."""
        self._longest = longest
        self._jobs: deque[tuple[Claimed, float]] = deque()
        self.returning: set[int] = set()
        """The ids of jobs that have to be given back."""

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def ids(self) -> list[int]:
        """The ids of the jobs that wait."""
        return [job.id for job, _ in self._jobs]

    @property
    def turn_ends_in(self) -> float:
        """Seconds until the first one has waited for too long; `math.inf` if none waits."""
        if not self._jobs:
            return math.inf
        return self._jobs[0][1] + self._longest - time.monotonic()

    def add(self, jobs: Iterable[Claimed]) -> None:
        """Hold jobs that were claimed just now."""
        now = time.monotonic()
        self._jobs.extend((job, now) for job in jobs)

    def next(self) -> tuple[Claimed, float]:
        """The job whose turn it is, and for how many seconds it was held."""
        job, since = self._jobs.popleft()
        return job, time.monotonic() - since

    def give_up(self, id: int | None = None) -> bool:
        """Start none of the jobs, or not that one; whether there are any to give back now."""
        ids = {found for found in self.ids if id in (None, found)}
        self._jobs = deque(one for one in self._jobs if one[0].id not in ids)
        self.returning |= ids
        return bool(ids)
