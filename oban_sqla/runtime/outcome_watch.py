"""The outcome watch: finds the outcomes of all jobs that somebody waits for in one event loop."""

import asyncio
import math
from collections.abc import Iterable, Sequence
from copy import deepcopy
from heapq import heappop, heappush
from typing import Any

from sqlalchemy import Executable
from sqlalchemy.exc import DataError, SQLAlchemyError

from ..config import Config
from ..models import Job
from ..models.job import COLUMNS, detached
from ..statements.announce import AWAIT, DONE, about, announce, ids_in
from ..statements.finished import finished
from .database import Database
from .notifier import Notifier
from .outcome_announcer import FORGOTTEN_AFTER
from .service import Emit, Service

# A node may write an outcome just before it hears that somebody waits: look again so much later.
SOON = (0.05, 0.25, 1.0)
# Looks that are due in the same tick are one look.
TICK = 0.05
# How many jobs one statement looks for. Making that many instances blocks the event loop for 10 ms.
BATCH = 1000
# How long the last waiter that leaves waits for a look that is under way.
FAREWELL = 1.0


class OutcomeWatch(Service):
    """Answers all waiters with shared looks, over one connection at a time.

    It tells the nodes once for which jobs somebody waits. A node that writes the outcome of such a
    job names it, and the next look is for the named jobs alone. A slow look for all jobs finds ends
    that no node tells of; it is a poll where LISTEN does not work.
    """

    name = "outcome_watch"

    def __init__(self, config: Config, database: Database, emit: Emit) -> None:
        super().__init__(emit)
        self._config = config
        self._database = database
        self._waiting: dict[int, set[asyncio.Future[Job]]] = {}
        # Waiters for whom no look was made yet: an error of their first look is theirs.
        self._asking: dict[int, list[asyncio.Future[Job]]] = {}
        # Ids that the nodes have not been told yet.
        self._untold: set[int] = set()
        self._named: set[int] = set()
        # When to look again, how many looks were made since the nodes were told, and for which ids.
        self._rounds: list[tuple[float, int, list[int]]] = []
        self._slow_look_at = math.inf
        # Waiting uses one connection of the pool, however many wait.
        self._turn = asyncio.Lock()
        self._notifier = Notifier(
            database,
            emit,
            channels={DONE: self._hear},
            on_change=self._listening_changed,
            listen_dsn=config.listen_dsn,
            turn=self._turn,
        )

    @property
    def idle(self) -> bool:
        """Whether nobody waits."""
        return not self._waiting

    @property
    def longest_retry(self) -> float:
        """During an outage, a new waiter's first look comes after so many seconds at the latest."""
        return min(super().longest_retry, self._config.poll_interval)

    async def outcomes(self, ids: Sequence[int]) -> list[Job]:
        """The jobs, once all have ended; `LookupError` for one that does not exist.

        What the first look raises is raised here. Later looks survive an outage of the database.
        """
        waiters = [self._join(id) for id in ids]
        self.wake()
        try:
            return list(await asyncio.gather(*waiters))
        finally:
            for id, waiter in zip(ids, waiters, strict=True):
                waiter.cancel()
                self._leave(id, waiter)

    async def run_once(self) -> float:
        """Look for the jobs that are new, named or due, and return the seconds to the next look."""
        asking, self._asking = self._asking, {}
        try:
            await self._look_for_due(asking)
        except Exception as error:
            for waiters in asking.values():
                _fail(waiters, error)
            # What this pass was to find is found by the next one.
            self._untold.update(self._waiting)
            if self._waited_for():
                raise
            # The callers have the error.
            return math.inf
        if self._waiting and self._config.notify == "listen":
            await self._notifier.start()
        next_look_at = min(self._slow_look_at, self._rounds[0][0] if self._rounds else math.inf)
        return max(0.0, next_look_at - asyncio.get_running_loop().time())

    async def close(self) -> None:
        """Stop listening."""
        await self._notifier.stop(FAREWELL)

    async def _look_for_due(self, asking: Iterable[int]) -> None:
        if self._database.prefix is None:
            await self._database.verify()
        now = asyncio.get_running_loop().time()
        untold, self._untold = self._untold & self._waiting.keys(), set()
        named, self._named = self._named, set()
        telling = set(self._waiting) if now >= self._slow_look_at else untold
        if telling and self._notifier.listening:
            news = about(AWAIT, sorted(telling))
            await self._fetch(announce(prefix=self._database.prefix), news)
        due = sorted({*telling, *asking, *named, *self._due_rounds(now)} & self._waiting.keys())
        for start in range(0, len(due), BATCH):
            await self._look(due[start : start + BATCH])
        self._plan_round(untold, 0)
        if telling is not untold or self._slow_look_at == math.inf:
            self._plan_slow_look()

    async def _look(self, ids: Sequence[int]) -> None:
        try:
            rows = await self._fetch(finished(), {"ids": ids})
        except Exception as error:
            if not _concerns_a_row(error):
                raise
            if len(ids) == 1:
                _fail(self._waiting.pop(ids[0], ()), error)
                return
            middle = len(ids) // 2
            await self._look(ids[:middle])
            await self._look(ids[middle:])
            return
        for id, exists, *columns in rows:
            waiters = self._waiting.pop(id, ())
            if exists:
                _answer(waiters, dict(zip(COLUMNS, columns, strict=True)))
            else:
                _fail(
                    waiters,
                    LookupError(f"there is no job {id}: it was deleted, or is not committed yet"),
                )

    async def _fetch(self, statement: Executable, params: dict[str, Any]) -> Sequence[Any]:
        async with self._turn:
            return await self._database.fetch(statement, params)

    def _waited_for(self) -> bool:
        return any(not one.done() for waiters in self._waiting.values() for one in waiters)

    def _join(self, id: int) -> asyncio.Future[Job]:
        waiter: asyncio.Future[Job] = asyncio.get_running_loop().create_future()
        if id not in self._waiting:
            self._waiting[id] = set()
            self._untold.add(id)
        self._waiting[id].add(waiter)
        self._asking.setdefault(id, []).append(waiter)
        return waiter

    def _leave(self, id: int, waiter: asyncio.Future[Job]) -> None:
        if (waiters := self._waiting.get(id)) is not None:
            waiters.discard(waiter)
            if not waiters:
                del self._waiting[id]

    def _due_rounds(self, now: float) -> set[int]:
        ids: set[int] = set()
        while self._rounds and self._rounds[0][0] <= now:
            _, looks, due = heappop(self._rounds)
            ids.update(due)
            self._plan_round(due, looks + 1)
        return ids

    def _plan_round(self, ids: Iterable[int], looks: int) -> None:
        left = [id for id in ids if id in self._waiting]
        if left and looks < len(SOON):
            at = asyncio.get_running_loop().time() + SOON[looks]
            heappush(self._rounds, (math.ceil(at / TICK) * TICK, looks, left))

    def _plan_slow_look(self) -> None:
        pause = self._config.poll_interval
        if self._notifier.listening:
            # In time to remind the nodes.
            pause = min(self._config.fallback_interval, FORGOTTEN_AFTER / 2)
        self._slow_look_at = asyncio.get_running_loop().time() + pause

    def _listening_changed(self) -> None:
        # The nodes could not be told before, and what they told was not heard.
        self._untold.update(self._waiting)
        self._plan_slow_look()
        self.wake()

    def _hear(self, news: dict[str, Any]) -> None:
        if named := self._waiting.keys() & set(ids_in(news)):
            self._named.update(named)
            self.wake()


def _concerns_a_row(error: Exception) -> bool:
    """Whether a value of a row can't be read, and not the database that can't be reached."""
    if isinstance(error, SQLAlchemyError):
        return isinstance(error, DataError)
    return not isinstance(error, OSError)


def _answer(waiters: Iterable[asyncio.Future[Job]], values: dict[str, Any]) -> None:
    waiting = [waiter for waiter in waiters if not waiter.done()]
    for number, waiter in enumerate(waiting):
        # An instance each, with values of its own: a waiter may add it to its session.
        waiter.set_result(detached(deepcopy(values) if number else values))


def _fail(waiters: Iterable[asyncio.Future[Job]], error: Exception) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_exception(error)
