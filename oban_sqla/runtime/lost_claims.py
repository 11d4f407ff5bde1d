"""`LostClaims`: jobs under the uuid of a producer that the producer does not know of."""

import math
import time
from collections.abc import Collection, Sequence

from ..statements.give_back import give_back
from .database import Database

# A server that lost its client may still finish the claim it was sent: look again for so long.
DOUBT = 60.0
# How often to look without a reason: nobody rescues what a living producer does not know of.
LOOK_INTERVAL = 600.0


class LostClaims:
    """Gives such jobs back: the answer to a claim may be lost, and the claim carried out."""

    def __init__(self, database: Database, queue: str) -> None:
        self._database = database
        self._queue = queue
        self.possible = False
        """Whether the database may have jobs that are claimed under the uuid."""
        # When a claim whose answer was lost can't come to light any more.
        self._doubtful_until = -math.inf
        self._looked_at = time.monotonic()

    @property
    def in_doubt(self) -> bool:
        """Whether a lost claim may still come to light."""
        return time.monotonic() < self._doubtful_until

    @property
    def is_due(self) -> bool:
        """Whether it is time to look."""
        return self.in_doubt or (
            self.possible and time.monotonic() - self._looked_at > LOOK_INTERVAL
        )

    def suspect(self) -> None:
        """A claim failed. It may have been carried out: its jobs have to be found again."""
        self._doubtful_until = math.inf

    async def give_back(
        self, uuid: str, known: Sequence[int], returning: Collection[int]
    ) -> tuple[int, ...]:
        """Give back the jobs under the uuid that are not `known`, and return their ids.

        returning: the ids of jobs that must be among them, now or later.
        """
        rows = await self._database.fetch(
            give_back(prefix=self._database.prefix),
            {"queue_name": self._queue, "producer": uuid, "running": list(known)},
        )
        ids = tuple(row.id for row in rows)
        self._looked_at = time.monotonic()
        if not {*returning} <= {*ids}:
            # Some may be locked by another transaction: they are given back later.
            self._doubtful_until = self._looked_at + DOUBT
        # Only now, after an outage of whatever length, does the server answer again.
        self._doubtful_until = min(self._doubtful_until, self._looked_at + DOUBT)
        return ids
