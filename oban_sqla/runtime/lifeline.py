"""`Lifeline`: rescues the jobs of nodes that died."""

import math
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy.exc import DBAPIError

from ..clock import LONGEST_INTERVAL
from ..errors import sqlstate
from ..events import RescueStop
from ..statements.move_apart import rescue_move
from ..statements.rescue import delete_expired_rows, rescue, until_settled
from .database import Database
from .refused_jobs import RefusedJobs
from .service import Emit, Service

# The most orphans of one statement.
BATCH = 5000
# Seconds until the next pass if another transaction has locked orphans.
LOCKED_RETRY = 1.0
# Classes of SQLSTATE with which the server refuses a row.
REFUSED = ("22", "23", "P0")


class Lifeline(Service):
    """Gives orphans back to their queues, on the leader.

    A pass comes when the next heartbeat would expire, so that a dead node is found at once. After
    an outage of the database, or if the table was emptied, all nodes look dead. So no job is
    rescued until living nodes have had time for two beats.
    """

    name = "lifeline"

    def __init__(
        self,
        database: Database,
        emit: Emit,
        *,
        is_leader: Callable[[], bool],
        heartbeat_expiry: float,
        rescue_after: float,
    ) -> None:
        super().__init__(emit)
        self._database = database
        self._refused = RefusedJobs(database, emit, rescue_move)
        self._is_leader = is_leader
        self._heartbeat_expiry = heartbeat_expiry
        self._rescue_after = min(rescue_after, LONGEST_INTERVAL)
        self._settled = False

    @property
    def longest_retry(self) -> float:
        """At most two beats, since there may be jobs to rescue after an outage."""
        return min(super().longest_retry, self._two_beats)

    @property
    def _two_beats(self) -> float:
        return self._heartbeat_expiry / 2

    @property
    def _times(self) -> dict[str, float]:
        return {"expiry": self._heartbeat_expiry, "settled": self._two_beats}

    async def run_once(self) -> float:
        """Rescue a batch, and wait until the next heartbeat may expire."""
        if not self._is_leader():
            return math.inf
        if not self._settled:
            # A new node can't rescue anything yet, so its first jobs need not wait for the
            # compilation of the statement that rescues.
            (row,) = await self._database.fetch(until_settled(), self._times)
            if row.settled_in is None or row.settled_in > 0:
                return self._pause(row.settled_in)
            self._settled = True
        started = time.monotonic()
        try:
            row = await self._rescue()
        except DBAPIError as error:
            if not sqlstate(error).startswith(REFUSED):
                raise
            # A constraint or a trigger of the user refuses an `on_discard` job.
            self._tell(await self._rescue(on_discard=False), started)
            raise
        if row.settled_in is None or row.settled_in > 0:
            return self._pause(row.settled_in)
        count = self._tell(row, started)
        if row.found > count:
            return 0.0 if count else LOCKED_RETRY
        if row.found == BATCH:
            return 0.0
        if row.expired:
            await self._database.fetch(delete_expired_rows(), {"expiry": self._heartbeat_expiry})
        longest = self._heartbeat_expiry
        return longest if row.next_in is None else min(longest, row.next_in)

    def _pause(self, settled_in: float | None) -> float:
        return self._two_beats / 2 if settled_in is None else float(settled_in)

    def _tell(self, row: Any, started: float) -> int:
        """Emit the rescued jobs, and return their number."""
        rescued, discarded, cancelled = (
            tuple(sorted(ids or ())) for ids in (row.rescued, row.discarded, row.cancelled)
        )
        duration = time.monotonic() - started
        self._emit("rescue_stop", RescueStop(rescued, discarded, cancelled, duration))
        return len(rescued) + len(discarded) + len(cancelled)

    async def _rescue(self, *, on_discard: bool = True) -> Any:
        statement = rescue(prefix=self._database.prefix, on_discard=on_discard)
        params = {**self._times, "batch": BATCH, "rescue_after": self._rescue_after}
        (row,) = await self._refused.passing(lambda: self._database.fetch(statement, params), {})
        return row
