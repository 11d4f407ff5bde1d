"""`Waiter`: waits for jobs to end, on any node."""

import asyncio
from collections.abc import Sequence

from ..config import Config
from ..models import Job
from .database import Database
from .outcome_watch import LEAVE_TIMEOUT, OutcomeWatch
from .service import Emit


class Waiter:
    """Keeps an outcome watch for each event loop that has waiters."""

    def __init__(self, config: Config, database: Database, emit: Emit) -> None:
        self._config = config
        self._database = database
        self._emit = emit
        self._watches: dict[asyncio.AbstractEventLoop, OutcomeWatch] = {}
        self._stops: set[asyncio.Task[None]] = set()

    async def wait(self, ids: Sequence[int]) -> list[Job]:
        """Wait until all jobs have ended, and return them; `LookupError` if one does not exist."""
        loop = asyncio.get_running_loop()
        if (watch := self._watches.get(loop)) is None:
            watch = self._watches[loop] = OutcomeWatch(self._config, self._database, self._emit)
            await watch.start()
        try:
            return await watch.outcomes(ids)
        finally:
            if watch.idle and self._watches.get(loop) is watch:
                del self._watches[loop]
                # A separate task, so that the watch stops even if this waiter is cancelled.
                stop = asyncio.create_task(watch.stop(LEAVE_TIMEOUT))
                self._stops.add(stop)
                stop.add_done_callback(self._stops.discard)
                await asyncio.shield(stop)
