"""`JobCounter`: counts the jobs in the table, and how long they wait, for listeners."""

import math
import time
from collections.abc import Callable

from ..events import JobsCounted
from ..runtime.database import Database
from ..runtime.service import Emit, Service
from ..statements.counts import EXACT, counts

INTERVAL = 15.0
"""The least seconds between two counts."""
# A count takes at most this share of the time.
SHARE = 0.05


class JobCounter(Service):
    """Counts the jobs by queue and state, on the leader, while `jobs_counted` has listeners."""

    name = "job counter"

    def __init__(
        self,
        database: Database,
        emit: Emit,
        *,
        is_leader: Callable[[], bool],
        listened: Callable[[str], bool],
    ) -> None:
        super().__init__(emit)
        self._database = database
        self._is_leader = is_leader
        self._listened = listened
        self._due_at = -math.inf

    async def run_once(self) -> float:
        """Count, and wait for the next time."""
        if not self._is_leader():
            return math.inf
        if not self._listened("jobs_counted"):
            return INTERVAL
        if (left := self._due_at - time.monotonic()) > 0:
            # Woken too early, by another election.
            return left
        started = time.monotonic()
        prefix = self._database.prefix
        assert prefix is not None
        rows = await self._database.fetch(counts(prefix=prefix, exact=EXACT))
        duration = time.monotonic() - started
        self._emit(
            "jobs_counted",
            JobsCounted(
                counts={(row.queue, row.state): row.count for row in rows},
                estimated=any(row.estimated for row in rows),
                oldest_available={row.queue: row.waits for row in rows if row.waits is not None},
                duration=duration,
            ),
        )
        interval = max(INTERVAL, duration / SHARE)
        self._due_at = started + interval
        return interval
