"""`ClaimSender`: sends the claims of a producer, past jobs that the database refuses to claim."""

import asyncio
from functools import partial

from ..statements.move_apart import claim_move
from .claiming import Claim, WayToClaim
from .database import Database
from .lost_claims import LostClaims
from .refused_jobs import RefusedJobs
from .service import Emit

CLAIM_BATCH = 1000
"""The most jobs of one claim."""


class ClaimSender:
    """Sends one claim after the other. If an answer is lost, `lost` finds the claimed jobs."""

    def __init__(
        self,
        database: Database,
        emit: Emit,
        way: WayToClaim,
        lost: LostClaims,
        turns: asyncio.Semaphore,
        *,
        queue: str,
    ) -> None:
        """`turns` lets the queues of a node claim in turn."""
        self._way = way
        self._lost = lost
        self._turns = turns
        self._queue = queue
        self._refused = RefusedJobs(database, emit, claim_move)

    @property
    def refused(self) -> list[int]:
        """The ids of the jobs that the database refuses to claim."""
        return self._refused.ids

    async def send(self, demand: int, producer: str) -> Claim:
        """Claim up to `demand` jobs for the producer with this uuid."""
        own = {"producer": producer, "node_name": "", "limit": CLAIM_BATCH}
        trial = {"queue_name": self._queue, **own}
        async with self._turns:
            self._lost.possible = True
            try:
                claim = partial(self._way.claim, demand, producer)
                return await self._refused.passing(claim, trial)
            except BaseException:
                self._lost.suspect()
                raise
