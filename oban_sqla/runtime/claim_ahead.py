"""`ClaimAhead`: how many claimed jobs a producer may hold beside the running ones."""

import time
from collections import deque

MOST = 1000


class ClaimAhead:
    """Counts the short jobs that a queue ended in the last `window` seconds.

    While claims come back full, a producer may hold as many jobs. They run until the next claim is
    back. A job that runs longer than the window does not count. So long jobs are never held on one
    node while another node has room for them. A window of 0 holds nothing.
    """

    def __init__(self, window: float) -> None:
        self._window = window
        self._full = False
        self._ends: deque[float] = deque(maxlen=MOST)

    def claim_ended(self, *, full: bool) -> None:
        """Note whether the last claim returned as many jobs as requested."""
        self._full = full

    def job_ended(self, started: float, now: float) -> None:
        """Count a job that began and ended at these instants of the monotonic clock."""
        if now - started <= self._window:
            self._ends.append(now)

    @property
    def allowance(self) -> int:
        """The most jobs that may be held now."""
        if not (self._full and self._window):
            return 0
        begin = time.monotonic() - self._window
        while self._ends and self._ends[0] < begin:
            self._ends.popleft()
        return len(self._ends)

    @property
    def longest_hold(self) -> float:
        """Seconds after which a held job that has not started goes back."""
        return 1.5 * self._window
