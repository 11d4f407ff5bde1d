"""`LostClaims`: find jobs that are claimed under a producer's uuid, but unknown to the producer."""

import math
import time
from collections.abc import Collection, Sequence

from ..statements.give_back import give_back
from ..statements.move_apart import give_back_move
from .database import Database
from .refused_jobs import RefusedJobs
from .service import Emit

# A server that has lost its client may still finish a claim, so search for this long.
DOUBT = 60.0
# Seconds between two other searches, since no rescue finds jobs of a producer that is alive.
SEARCH_INTERVAL = 600.0


class LostClaims:
    """Gives back jobs of claims that were carried out, but whose answers were lost."""

    def __init__(self, database: Database, emit: Emit, queue: str) -> None:
        self._database = database
        self._refused = RefusedJobs(database, emit, give_back_move)
        self._queue = queue
        self.possible = False
        """Whether the database may have jobs that are claimed under the uuid."""
        self.unaccounted = 0.0
        """How many claimed jobs have no outcome yet; `math.inf` after a claim that failed."""
        # Until when a claim whose answer was lost may still take effect.
        self._doubtful_until = -math.inf
        self._searched_at = time.monotonic()

    @property
    def in_doubt(self) -> bool:
        """Whether a lost claim may still take effect."""
        return time.monotonic() < self._doubtful_until

    @property
    def is_due(self) -> bool:
        """Whether to search for lost jobs now."""
        return self.in_doubt or (
            self.possible and time.monotonic() - self._searched_at > SEARCH_INTERVAL
        )

    def suspect(self) -> None:
        """Note a failed claim. It may have been carried out, so its jobs must be found."""
        self._doubtful_until = self.unaccounted = math.inf

    async def give_back(
        self, uuid: str, known: Sequence[int], returning: Collection[int]
    ) -> tuple[int, ...]:
        """Give back the jobs under the uuid that are not `known`, and return their ids.

        returning: the ids of jobs that must be among them, now or later.
        """
        params = {"queue_name": self._queue, "producer": uuid, "running": list(known)}
        statement = give_back(prefix=self._database.prefix)
        rows = await self._refused.passing(lambda: self._database.fetch(statement, params), params)
        ids = tuple(sorted(row.id for row in rows))
        self._searched_at = time.monotonic()
        if not {*returning} <= {*ids}:
            # Jobs that another transaction locks are given back later.
            self._doubtful_until = self._searched_at + DOUBT
        # The doubt is counted from now, when the server answers again.
        self._doubtful_until = min(self._doubtful_until, self._searched_at + DOUBT)
        return ids
