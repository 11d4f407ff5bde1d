"""`Board`: the state that all pages of a dashboard share."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from ..clock import client_now
from ..doctor.examination import examine
from ..doctor.finding import Finding
from ..events import DashboardAction, emit
from ..migrations import LATEST
from ..models import Job
from ..monitor.cron_status import EntryStatus, cron_status
from ..monitor.status import Status, status
from ..oban import Oban
from ..runtime.cron import job_of_tick
from ..workers.registry import with_cron
from .history import History, Recent, recent
from .reads import Reads, set_timeout
from .rows import RowHook
from .shared import Refreshes, Shared

Mask = Callable[[str, Any, str], Any]
"""Takes a field (`args`, `meta`, `errors`, `recorded`), its value, and the name of the worker."""

# Up to this many jobs of a queue and state are counted; larger numbers are estimated.
EXACT = 5_000
# Seconds for which results are shared.
STATUS, HISTORY, FINDINGS = 1.0, 5.0, 60.0
# A change of many jobs may take longer than a page.
_CHANGE = 30.0


class Board:
    """An `Oban`, and how pages read from it and change it."""

    def __init__(
        self,
        oban: Oban,
        *,
        engine: AsyncEngine | None,
        timeout: float,
        mask: Mask | None,
        row: RowHook | None,
    ) -> None:
        database = oban._database
        self.oban = oban
        self.mask = mask
        self.row = row
        self.timeout = timeout
        self.config = oban._config
        self.reads = Reads(
            database.engine if engine is None else engine, oban.prefix, timeout=timeout
        )
        self._status = Shared(partial(status, self.reads, exact=EXACT), STATUS)
        self._findings = Shared(self._examine, FINDINGS)
        self._recent: dict[float, Shared[Recent]] = {}
        self.refreshes = Refreshes(STATUS)

    async def status(self) -> Status:
        """Nodes, queues and counts, read at most once a second for all viewers."""
        return await self._status.get()

    async def findings(self) -> list[Finding]:
        """The findings of the doctor, read at most once a minute."""
        return await self._findings.get()

    async def history(self, window: float, queue: str | None = None) -> History:
        """The jobs that ended in the last `window` seconds, read at most every 5 seconds."""
        if window not in self._recent:
            self._recent[window] = Shared(partial(self._read_recent, window), HISTORY)
        return (await self._recent[window].get()).history(queue)

    async def entries(self) -> list[EntryStatus]:
        """The cron entries of the workers that this process has imported."""
        name, zone = self.config.name, self.config.timezone
        return await cron_status(self.reads, instance=name, timezone=zone)

    async def run_entry(self, worker: str) -> Job | None:
        """Enqueue the job of a cron entry now; `None` if no imported worker of the name has one."""
        for one in with_cron():
            if one.name == worker and one.cron is not None:
                job = job_of_tick(one, one.cron, client_now(), self.config.timezone)
                return await self.oban.enqueue(job)
        return None

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """A session whose transaction commits at the end, for a change."""
        async with self.oban._database.session() as session:
            await session.execute(set_timeout(_CHANGE))
            yield session

    def report(self, action: DashboardAction) -> None:
        """Emit the event of an action."""
        emit(self.oban, "dashboard_action", action)

    async def _examine(self) -> list[Finding]:
        return [one async for one in examine(self.reads, self.config, latest=LATEST)]

    async def _read_recent(self, window: float) -> Recent:
        queues = (await self.status()).queues
        jobs = sum(count.count for queue in queues for count in queue.counts.values())
        return await recent(self.reads, window=window, jobs=jobs)
