"""`HeldJobs`: jobs that a producer has claimed but not started."""

import math
import time
from collections import deque
from collections.abc import Iterable

from ..statements.claimed import Claimed


class HeldJobs:
    """The jobs that wait to start, in the order of their claims, and the jobs that go back."""

    def __init__(self, longest: float) -> None:
        """`longest`: the seconds after which a job that has not started goes back."""
        self._longest = longest
        self._jobs: deque[tuple[Claimed, float]] = deque()
        self.returning: set[int] = set()
        """The ids of jobs that must be given back."""

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def ids(self) -> list[int]:
        """The ids of the waiting jobs."""
        return [job.id for job, _ in self._jobs]

    @property
    def expires_in(self) -> float:
        """Seconds until the first job has waited too long; `math.inf` if no job waits."""
        if not self._jobs:
            return math.inf
        return self._jobs[0][1] + self._longest - time.monotonic()

    def add(self, jobs: Iterable[Claimed]) -> None:
        """Hold jobs that were just claimed."""
        now = time.monotonic()
        self._jobs.extend((job, now) for job in jobs)

    def next(self) -> tuple[Claimed, float]:
        """Remove the next job. Returns it and the seconds for which it was held."""
        job, since = self._jobs.popleft()
        return job, time.monotonic() - since

    def give_up(self, id: int | None = None) -> bool:
        """Don't start the job with this id, or any job. Returns whether jobs must be given back."""
        ids = {found for found in self.ids if id in (None, found)}
        self._jobs = deque(one for one in self._jobs if one[0].id not in ids)
        self.returning |= ids
        return bool(ids)
