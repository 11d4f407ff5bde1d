"""`QueueKeying`: writes the keys of waiting jobs, for a queue that counts by `partition`."""

import time
from collections.abc import Mapping
from typing import Any

from ..runtime.database import Database
from ..runtime.raw_statement import RawStatement
from .key_jobs import key_jobs
from .queue_keys import QueueKeys
from .search import Search

BATCH = 2000
"""The most jobs that get their keys before one claim."""


class QueueKeying:
    """Finds the waiting jobs without keys, and writes them."""

    def __init__(self, database: Database, keys: QueueKeys) -> None:
        self._statement = RawStatement(database, key_jobs(keys))
        self._search = Search()

    def news(self) -> None:
        """Note that there may be new jobs."""
        self._search.news()

    @property
    def again_in(self) -> float:
        """Seconds until another search finds waiting jobs that the last search has skipped."""
        return self._search.again_in

    async def write(self, params: Mapping[str, Any]) -> bool:
        """Write the keys of some jobs. Returns whether others may be left without keys."""
        own = {"since": self._search.since(), "after": self._search.after, "batch": BATCH}
        started = time.monotonic()
        rows = await self._statement.fetch({**params, **own})
        jobs = sorted(
            (priority, scheduled_at.replace(tzinfo=None), id)
            for _, priority, scheduled_at, id in rows
            if scheduled_at is not None
        )
        complete = len(rows) < BATCH
        searched_at = rows[0][0] if complete else None
        self._search.passed(jobs, searched_at, time.monotonic() - started)
        return not complete
