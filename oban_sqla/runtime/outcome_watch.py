"""`OutcomeWatch`: finds the outcomes of all awaited jobs of one event loop."""

import asyncio
import math
from collections.abc import Iterable, Sequence
from copy import deepcopy
from heapq import heappop, heappush
from typing import Any

import psycopg
from sqlalchemy.exc import DataError, SQLAlchemyError

from ..config import Config
from ..errors import UnreadableJobError
from ..models import Job
from ..statements.announce import AWAIT, DONE, about, announce, ids_in
from ..statements.claimed import Claimed
from ..statements.finished import finished
from .database import Database
from .notifier import Notifier
from .outcome_announcer import FORGOTTEN_AFTER
from .raw_statement import RawStatement
from .service import Emit, Service

# A node may write an outcome just before it hears of the waiter: query again after these delays.
SOON = (0.05, 0.25, 1.0)
# Queries that are due in the same tick are merged.
TICK = 0.05
# The most jobs of one statement. Making as many instances blocks the event loop for 10 ms.
BATCH = 1000
# Seconds that the last waiter waits for the current query when it leaves.
LEAVE_TIMEOUT = 1.0


class OutcomeWatch(Service):
    """Answers all waiters with shared queries, over one connection at a time.

    The watch tells the nodes which jobs are awaited. A node that writes the outcome of such a job
    announces it, and the next query is only for announced jobs. A full query, for all
    jobs, finds outcomes that no node announces. If LISTEN does not work, it is the poll.
    """

    name = "outcome_watch"

    def __init__(self, config: Config, database: Database, emit: Emit) -> None:
        super().__init__(emit)
        self._config = config
        self._database = database
        self._waiting: dict[int, set[asyncio.Future[Job]]] = {}
        # Waiters without a query yet. They get the error of their first query.
        self._asking: dict[int, list[asyncio.Future[Job]]] = {}
        # Ids of awaited jobs that the nodes have not been told yet.
        self._untold: set[int] = set()
        self._named: set[int] = set()
        # When to query again, how many such queries there were, and the ids to query.
        self._rounds: list[tuple[float, int, list[int]]] = []
        self._full_query_at = math.inf
        self._finished = RawStatement(database, finished())
        # All waiters together use one connection of the pool.
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
        """Whether there are no waiters."""
        return not self._waiting

    @property
    def longest_retry(self) -> float:
        """The most seconds until the first query for a new waiter during an outage."""
        return min(super().longest_retry, self._config.poll_interval)

    async def outcomes(self, ids: Sequence[int]) -> list[Job]:
        """Wait until all jobs have ended, and return them; `LookupError` if one does not exist.

        An error of the first query is raised here. Later queries survive an outage of the database.
        """
        waiters = [self._join(id) for id in ids]
        self.wake()
        try:
            # Most calls wait for one job, and need no gather().
            return [await waiters[0]] if len(waiters) == 1 else await asyncio.gather(*waiters)
        finally:
            for id, waiter in zip(ids, waiters, strict=True):
                waiter.cancel()
                self._leave(id, waiter)

    async def run_once(self) -> float:
        """Query the new, announced and due jobs. Returns the seconds until the next query."""
        asking, self._asking = self._asking, {}
        try:
            await self._query_due(asking)
        except Exception as error:
            for waiters in asking.values():
                _fail(waiters, error)
            # The next pass queries all jobs of this one.
            self._untold.update(self._waiting)
            if self._waited_for():
                raise
            # All waiters have received the error.
            return math.inf
        if self._waiting and self._config.notify == "listen":
            await self._notifier.start()
        next_query_at = min(self._full_query_at, self._rounds[0][0] if self._rounds else math.inf)
        return max(0.0, next_query_at - asyncio.get_running_loop().time())

    async def close(self) -> None:
        """Stop listening."""
        await self._notifier.stop(LEAVE_TIMEOUT)

    async def _query_due(self, asking: Iterable[int]) -> None:
        if self._database.prefix is None:
            await self._database.verify()
        now = asyncio.get_running_loop().time()
        untold, self._untold = self._untold & self._waiting.keys(), set()
        named, self._named = self._named, set()
        telling = set(self._waiting) if now >= self._full_query_at else untold
        if telling and self._notifier.listening:
            news = about(AWAIT, sorted(telling))
            async with self._turn:
                await self._database.fetch(announce(prefix=self._database.prefix), news)
        due = sorted({*telling, *asking, *named, *self._due_rounds(now)} & self._waiting.keys())
        for start in range(0, len(due), BATCH):
            await self._query(due[start : start + BATCH])
        self._plan_round(untold, 0)
        if telling is not untold or self._full_query_at == math.inf:
            self._plan_full_query()

    async def _query(self, ids: Sequence[int]) -> None:
        try:
            rows = await self._ended(ids)
        except Exception as error:
            if not _concerns_a_row(error):
                raise
            if len(ids) == 1:
                _fail(self._waiting.pop(ids[0], ()), error)
                return
            middle = len(ids) // 2
            await self._query(ids[:middle])
            await self._query(ids[middle:])
            return
        for id, exists, *columns in rows:
            waiters = self._waiting.pop(id, ())
            if exists:
                self._answer(waiters, columns)
            else:
                _fail(
                    waiters,
                    LookupError(f"there is no job {id}: it was deleted, or is not committed yet"),
                )

    async def _ended(self, ids: Sequence[int]) -> Sequence[Any]:
        async with self._turn:
            try:
                return await self._finished.fetch({"ids": ids})
            except psycopg.Error:
                # SQLAlchemy sends it again, since callers of `wait` know SQLAlchemy's errors.
                return await self._finished.fetch({"ids": ids})

    def _answer(self, waiters: Iterable[asyncio.Future[Job]], columns: Sequence[Any]) -> None:
        waiting = [waiter for waiter in waiters if not waiter.done()]
        for number, waiter in enumerate(waiting):
            # Each waiter gets its own instance and values, since it may add them to a session.
            row = Claimed(deepcopy(columns) if number else columns)
            try:
                waiter.set_result(row.job(self._database.loads))
            except UnreadableJobError as error:
                waiter.set_exception(error)

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
            _, queries, due = heappop(self._rounds)
            ids.update(due)
            self._plan_round(due, queries + 1)
        return ids

    def _plan_round(self, ids: Iterable[int], queries: int) -> None:
        left = [id for id in ids if id in self._waiting]
        if left and queries < len(SOON):
            at = asyncio.get_running_loop().time() + SOON[queries]
            heappush(self._rounds, (math.ceil(at / TICK) * TICK, queries, left))

    def _plan_full_query(self) -> None:
        pause = self._config.poll_interval
        if self._notifier.listening:
            # Early enough to remind the nodes of the awaited jobs.
            pause = min(self._config.fallback_interval, FORGOTTEN_AFTER / 2)
        self._full_query_at = asyncio.get_running_loop().time() + pause

    def _listening_changed(self) -> None:
        # Before the change, the nodes were not told of the awaited jobs, and their news was not
        # heard.
        self._untold.update(self._waiting)
        self._plan_full_query()
        self.wake()

    def _hear(self, news: dict[str, Any]) -> None:
        if named := self._waiting.keys() & set(ids_in(news)):
            self._named.update(named)
            self.wake()


def _concerns_a_row(error: Exception) -> bool:
    """Whether a row can't be read, in contrast to a database that can't be reached."""
    if isinstance(error, SQLAlchemyError):
        return isinstance(error, DataError)
    return not isinstance(error, OSError)


def _fail(waiters: Iterable[asyncio.Future[Job]], error: Exception) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_exception(error)
