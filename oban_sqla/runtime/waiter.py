"""The waiter: waits for jobs to be finished, wherever they run."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from ..config import Config
from ..models import Job
from ..models.job import COLUMNS, detached
from ..statements.announce import AWAIT, DONE, about, announce
from ..statements.finished import finished
from .database import Database
from .notifier import Notifier
from .service import Emit

# A node may write an outcome while it is being told that somebody waits: look again soon.
SOON = (0.05, 0.25, 1.0)


class Waiter:
    """Hears what becomes of jobs on a connection that is open while somebody waits.

    Where LISTEN does not work, and for jobs that end elsewhere than on a node of ours, it looks
    from time to time.
    """

    def __init__(self, config: Config, database: Database, emit: Emit) -> None:
        self._config = config
        self._database = database
        self._emit = emit
        self._waiting: set[asyncio.Event] = set()
        self._notifier = self._new_notifier()

    async def wait(self, ids: Sequence[int]) -> list[Job]:
        """The jobs, as they are when all are finished; `LookupError` for one that is not there."""
        if self._database.prefix is None:
            await self._database.verify()
        async with self._listening() as woken:
            jobs: dict[int, Job] = {}
            looks = 0
            while left := [id for id in ids if id not in jobs]:
                woken.clear()
                await self._database.fetch(
                    announce(prefix=self._database.prefix), about(AWAIT, left)
                )
                rows = await self._database.fetch(finished(left))
                if gone := set(left) - {row.id for row in rows}:
                    raise LookupError(
                        f"there is no job {min(gone)}: it was deleted, or is not committed yet"
                    )
                for row in rows:
                    if row.finished:
                        jobs[row.id] = detached(dict(zip(COLUMNS, row[1:], strict=True)))
                if len(jobs) < len(ids):
                    await self._next(woken, looks)
                    looks += 1
            return [jobs[id] for id in ids]

    async def _next(self, woken: asyncio.Event, looks: int) -> None:
        pause = self._config.poll_interval
        if self._notifier.listening:
            pause = self._config.fallback_interval
        if looks < len(SOON):
            pause = min(pause, SOON[looks])
        try:
            async with asyncio.timeout(pause):
                await woken.wait()
        except TimeoutError:
            pass

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[asyncio.Event]:
        woken = asyncio.Event()
        if not self._waiting:
            # Of this event loop, and not the one that those who waited before are stopping.
            self._notifier = self._new_notifier()
            if self._config.notify == "listen":
                await self._notifier.start()
        self._waiting.add(woken)
        try:
            yield woken
        finally:
            self._waiting.discard(woken)
            if not self._waiting:
                await self._notifier.stop()

    def _new_notifier(self) -> Notifier:
        return Notifier(
            self._database,
            self._emit,
            channels={DONE: self._hear},
            on_change=self._wake,
            listen_dsn=self._config.listen_dsn,
        )

    def _hear(self, news: dict[str, Any]) -> None:
        self._wake()

    def _wake(self) -> None:
        for woken in self._waiting:
            woken.set()
