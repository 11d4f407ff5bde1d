"""Claiming ahead: how many jobs a producer may hold beside those that run."""

import time
from collections import deque

MOST = 1000


class ClaimAhead:
    """Counts the short jobs that a queue ended in the last `window` seconds.

    So many may be held while claims come back full: they fill the time until the next claim is
    back. A job that runs for longer than the window does not count, so that long jobs are never
    held behind one another while another node has room for them. A window of 0 holds nothing.
    """

    def __init__(self, window: float) -> None:
        self._window = window
        self._full = False
        self._ends: deque[float] = deque(maxlen=MOST)

    def claim_ended(self, *, full: bool) -> None:
        """Note whether the last claim brought all that it asked for."""
        self._full = full

    def job_ended(self, started: float, now: float) -> None:
        """Count a job that began and ended at these instants of the monotonic clock."""
        if now - started <= self._window:
            self._ends.append(now)

    @property
    def allowance(self) -> int:
        """How many jobs may be held now."""
        if not (self._full and self._window):
            return 0
        begin = time.monotonic() - self._window
        while self._ends and self._ends[0] < begin:
            self._ends.popleft()
        return len(self._ends)

    @property
    def longest_hold(self) -> float:
        """Seconds after which a held job whose turn did not come goes back."""
        return 1.5 * self._window
