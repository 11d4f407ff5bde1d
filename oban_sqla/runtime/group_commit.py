"""`GroupCommit`: inserts single jobs. Many calls in a row share a connection and statements."""

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext
from contextvars import Context
from typing import NamedTuple

from sqlalchemy.exc import DBAPIError

from .. import wakeups
from ..enqueue.batch import MOST_ROWS, wakeup
from ..enqueue.connections import insert_jobs
from ..enqueue.observed import observed
from ..models import Job
from ..models.unique_job import may_hold_key
from .database import Database
from .insert_connection import InsertConnection
from .time_limits import ANSWER_TIMEOUT, deadline

# A rush is at least this many calls, each within LINGER seconds after the one before.
RUSH = 10
# In a rush, the connection is kept for this many seconds after a call.
LINGER = 0.02
# Seconds that a call waits for the end of a statement with other jobs.
PATIENCE = 0.1


class _Call(NamedTuple):
    job: Job
    inserted: asyncio.Future[bool]

    def answer(self, inserted: bool) -> None:
        if not self.inserted.done():
            self.inserted.set_result(inserted)


class GroupCommit:
    """Inserts single jobs in one event loop. Each is committed when its call returns.

    A single call takes a connection of the pool, or one that a running node keeps. In a rush, a
    task keeps a connection, and a call uses it directly while it is free. Calls that come while a
    statement runs share the next statement, which the task sends as soon as the first one has
    ended. If the database refuses a statement, its jobs are tried in halves, so that a bad job
    fails only its own call.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[_Call] = []
        # The calls that the task has taken, and those of the statement that it sends.
        self._taken: Sequence[_Call] = ()
        self._sent: Sequence[_Call] = ()
        self._alone = 0
        self._serving: asyncio.Task[None] | None = None
        self._kept: InsertConnection | None = None
        self._busy = False
        self._news: asyncio.Future[None] | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._slow = False
        self._rush = 0
        self._last_call = 0.0

    async def insert(self, job: Job) -> None:
        """Insert a job, and wake the instances of this process.

        A call that is cancelled before its job is sent inserts nothing. A call that is cancelled
        later may have inserted its job, as with any commit.
        """
        loop = asyncio.get_running_loop()
        self._rush = self._rush + 1 if loop.time() - self._last_call < LINGER else 0
        try:
            with observed([job]):
                if not self._is_shared(job) or not await self._insert_on_kept(job):
                    await self._insert_alone(job)
        finally:
            self._last_call = loop.time()

    async def close(self) -> None:
        """Give back the kept connection."""
        if self._serving is not None:
            self._rush = 0
            self._wake_up()
            await asyncio.wait([self._serving])

    def _is_shared(self, job: Job) -> bool:
        # A unique job may have to wait for the transaction that holds its key.
        if self._slow or self._database.in_transactions or may_hold_key(job):
            return False
        return self._alone > 0 or self._serving is not None or self._rush >= RUSH

    async def _insert_alone(self, job: Job) -> None:
        self._alone += 1
        try:
            await self._insert_in_transaction(job)
        finally:
            self._alone -= 1
        self._publish([job])

    async def _insert_in_transaction(self, job: Job) -> None:
        database = self._database
        if not database.in_transactions:
            # A unique job may wait long, so it does not take a kept connection.
            waits = may_hold_key(job)
            connections = database.autocommit() if waits else database.kept_or_pooled(at_once=True)
            limit = nullcontext() if waits else deadline(ANSWER_TIMEOUT)
            try:
                async with limit, connections as connection:
                    await insert_jobs(connection, [job], database.prefix)
            except DBAPIError as error:
                if not database.needs_transactions_after(error):
                    raise
            else:
                return
        async with database.transaction() as connection:
            await insert_jobs(connection, [job], database.prefix)

    async def _insert_on_kept(self, job: Job) -> bool:
        """Insert a job on the kept connection; false if it must be inserted alone."""
        kept = self._kept
        if kept is None or self._busy or self._waiting or not kept.is_usable:
            return await self._insert_with_others(job)
        # Sent by this call: handing it to the task would cost a turn of the event loop, more than
        # the statement.
        self._busy = True
        try:
            async with deadline(ANSWER_TIMEOUT):
                inserted = await kept.insert([job])
        finally:
            self._end_statement()
            if self._waiting or not kept.is_usable:
                self._wake_up()
        if inserted:
            self._publish([job])
        return inserted

    async def _insert_with_others(self, job: Job) -> bool:
        loop = asyncio.get_running_loop()
        call = _Call(job, loop.create_future())
        self._waiting.append(call)
        if self._serving is None:
            # In a context of its own, since the task outlives the call.
            self._serving = loop.create_task(self._serve(), name="oban-enqueue", context=Context())
        if self._busy and self._patience is None:
            self._patience = loop.call_later(PATIENCE, self._lose_patience)
        self._wake_up()
        return await call.inserted

    async def _serve(self) -> None:
        try:
            async with self._database.autocommit() as connection:
                usable = False
                try:
                    kept = await InsertConnection.on(self._database, connection)
                    try:
                        self._kept = kept
                        await self._insert_waiting(kept)
                        usable = kept.is_usable
                    finally:
                        self._kept = None
                        kept.release()
                finally:
                    if not usable:
                        await connection.invalidate()
        except BaseException as error:
            # These jobs may have been inserted or not.
            for call in self._sent:
                if not call.inserted.done():
                    call.inserted.set_exception(error)
            if not isinstance(error, Exception):
                raise
        finally:
            self._serving = None
            self._refer_to_pool([*self._taken, *self._waiting])
            self._taken, self._sent, self._waiting = (), (), []

    async def _insert_waiting(self, kept: InsertConnection) -> None:
        # A call that uses the connection still needs it, to raise the error with which it was lost.
        while await self._is_used() and (self._busy or kept.is_usable):
            if self._waiting and not self._busy:
                await self._insert_next(kept)

    async def _is_used(self) -> bool:
        """Whether the connection is in use or was just used. May first wait for a call."""
        loop = asyncio.get_running_loop()
        if self._busy or (not self._waiting and self._rush >= RUSH):
            self._news = loop.create_future()
            timer = loop.call_later(LINGER, self._wake_up)
            await self._news
            timer.cancel()
        is_rush = self._rush >= RUSH and loop.time() - self._last_call < LINGER
        return bool(self._waiting) or self._busy or is_rush

    async def _insert_next(self, kept: InsertConnection) -> None:
        taken, self._waiting = self._waiting[:MOST_ROWS], self._waiting[MOST_ROWS:]
        # A cancelled call is done, so its job is left out.
        self._taken = [call for call in taken if not call.inserted.done()]
        self._busy = True
        try:
            if self._taken:
                await self._insert(self._taken, kept)
            if len(self._taken) > 1:
                # Let the answered callers call again, so that their jobs share the next statement.
                await asyncio.sleep(0)
        finally:
            self._end_statement()

    async def _insert(self, calls: Sequence[_Call], kept: InsertConnection) -> None:
        self._sent = calls
        async with deadline(ANSWER_TIMEOUT):
            inserted = await kept.insert([call.job for call in calls])
        self._sent = ()
        if inserted:
            for call in calls:
                call.answer(True)
            self._publish([call.job for call in calls])
        elif len(calls) == 1 or not kept.is_usable:
            # On a connection of the pool, the job fails with the error that the engine raises.
            self._refer_to_pool(calls)
        else:
            middle = len(calls) // 2
            for half in (calls[:middle], calls[middle:]):
                await self._insert(half, kept)

    def _end_statement(self) -> None:
        self._busy = self._slow = False
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _lose_patience(self) -> None:
        self._slow = True
        waiting, self._waiting = self._waiting, []
        self._refer_to_pool(waiting)

    def _refer_to_pool(self, calls: Sequence[_Call]) -> None:
        for call in calls:
            call.answer(False)

    def _wake_up(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def _publish(self, jobs: Sequence[Job]) -> None:
        wakeups.publish(self._database.address, self._database.prefix, wakeup(jobs))
