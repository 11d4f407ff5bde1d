"""`RefusedJobs`: jobs whose move the database refuses, so that the statement skips them."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cached_property
from typing import Any, TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from ..errors import sqlstate
from ..events import MoveRefused
from ..statements.move_apart import CHECK_NOW, Move, hide, limit_idle_time, unmoved
from .database import Database
from .pool import capacity
from .refusals import concerns_some, concerns_structure
from .service import Emit
from .time_limits import ANSWER_TIMEOUT, deadline

T = TypeVar("T")

FEWEST_TRIED, MOST_TRIED = 100, 10_000
"""The fewest and the most jobs that a search tries."""
MOST_FOUND = 10
"""The most refused jobs that one search finds."""
SEARCHES = 10
"""The most searches for one statement."""
FIRST_DELAY, LONGEST_DELAY = 1.0, 30.0
"""The first and the longest delay, in seconds, until a refused job is tried again."""


class RefusedJobs:
    """Runs a statement that moves many jobs, and skips jobs whose move is refused.

    A trigger or a constraint of the user may raise for one job. Then the statement fails for all
    jobs, and would fail again and again. So the first jobs are tried in halves, in transactions
    that are rolled back. A refused job is locked while the statement runs, since the statement
    skips locked jobs. It is tried again now and then.
    """

    def __init__(self, database: Database, emit: Emit, move: Callable[[], Move]) -> None:
        """`move` is called when a job is refused, since most nodes never need its statements."""
        self._database = database
        self._emit = emit
        self._make_move = move
        self._most = FEWEST_TRIED
        # When each refused job is tried again, and the delay after that.
        self._apart: dict[int, tuple[float, float]] = {}

    @cached_property
    def _move(self) -> Move:
        return self._make_move()

    @property
    def ids(self) -> list[int]:
        """The ids of the refused jobs."""
        return [*self._apart]

    async def passing(self, send: Callable[[], Awaitable[T]], params: Mapping[str, Any]) -> T:
        """Run the statement by `send`, and return its result. `params` are for a search."""
        if self._apart:
            await self._try_again(params)
        for _ in range(SEARCHES):
            try:
                return await self._send(send)
            except Exception as error:
                state = sqlstate(error)
                # Tried with one job: if the server is only too slow for many jobs, no job is
                # refused.
                if not concerns_some(state, 1):
                    raise
                if not await self._search(params, state) and not self._apart:
                    raise
        return await self._send(send)

    async def _send(self, send: Callable[[], Awaitable[T]]) -> T:
        if not self._apart:
            return await send()
        sent: list[T] = []
        refusal: Exception | None = None
        try:
            async with deadline(ANSWER_TIMEOUT), self._beside() as connection:
                # A change of the table waits for this transaction, and the statement for the
                # change. Then the server ends this transaction, which is no failure.
                await connection.execute(limit_idle_time())
                await connection.execute(hide(*self._move.states), {"ids": self.ids})
                try:
                    sent.append(await send())
                except Exception as error:
                    refusal = error
        except DBAPIError:
            if not sent and refusal is None:
                raise
        if refusal is not None:
            raise refusal
        return sent[0]

    @asynccontextmanager
    async def _beside(self) -> AsyncIterator[AsyncConnection]:
        """A transaction beside that of the statement, also if the pool has a single connection."""
        database = self._database
        if capacity(database.engine) == 1:
            database = database.apart()
        try:
            async with database.transaction() as connection:
                yield connection
        finally:
            if database is not self._database:
                await database.dispose()

    async def _search(self, params: Mapping[str, Any], state: str) -> bool:
        """Set refused jobs apart. Returns whether the statement may succeed now."""
        own = {**params, "most": self._most, "known": self.ids}
        ids = [id for (id,) in await self._database.fetch(self._move.candidates, own)]
        refused, accepted = await self._try(ids, params)
        if not refused and not accepted.issuperset(ids):
            # Another node has locked a job, perhaps to try it.
            return True
        if not refused or (concerns_structure(state) and len(refused) == len(ids)):
            # The statement may have met jobs that come later.
            self._most = min(MOST_TRIED, 4 * self._most)
            return False
        self._most = FEWEST_TRIED
        for id, error in refused.items():
            self._apart[id] = time.monotonic() + FIRST_DELAY, 2 * FIRST_DELAY
            self._emit("move_refused", MoveRefused(id, self._move.name, error))
        return True

    async def _try_again(self, params: Mapping[str, Any]) -> None:
        now = time.monotonic()
        due = [id for id, (at, _) in self._apart.items() if at <= now][:MOST_FOUND]
        if not due:
            return
        _, accepted = await self._try(due, params)
        rows = await self._database.fetch(unmoved(*self._move.states), {"ids": due})
        # A locked job is neither refused nor accepted.
        left = {id for (id,) in rows} - accepted
        for id in due:
            _, delay = self._apart.pop(id)
            if id in left:
                self._apart[id] = now + delay, min(LONGEST_DELAY, 2 * delay)

    async def _try(
        self, ids: Sequence[int], params: Mapping[str, Any]
    ) -> tuple[dict[int, Exception], set[int]]:
        """Try to move jobs, and move none.

        Returns the jobs that are refused by themselves, at most `MOST_FOUND`, each with its error,
        and the accepted jobs.
        """
        refused: dict[int, Exception] = {}
        accepted: set[int] = set()
        parts = [ids] if ids else []
        while parts and len(refused) < MOST_FOUND:
            part = parts.pop()
            try:
                accepted |= await self._roll_back(part, params)
            except Exception as error:
                if not concerns_some(sqlstate(error), 1):
                    raise
                if len(part) == 1:
                    refused[part[0]] = error
                    continue
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]
        return refused, accepted

    async def _roll_back(self, ids: Sequence[int], params: Mapping[str, Any]) -> set[int]:
        """Move jobs in a transaction that is rolled back. Returns the ids of the moved ones."""
        async with deadline(ANSWER_TIMEOUT), self._database.transaction() as connection:
            moved = await connection.execute(self._move.trial, {**params, "ids": [*ids]})
            found = {row.id for row in moved}
            await connection.execute(CHECK_NOW)
            await connection.rollback()
        return found
