"""`GroupCommit`: calls that come while a statement runs share the next statement."""

import asyncio
from collections.abc import Sequence
from contextvars import Context
from typing import NamedTuple

import psycopg
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from .. import wakeups
from ..enqueue.batch import MOST_ROWS, encoded, wakeup
from ..enqueue.connections import execute, insert_jobs
from ..enqueue.from_rows import fill_from
from ..enqueue.observed import observed
from ..models import Job
from ..models.unique_job import may_hold_key
from .database import Database
from .engine import driver_of
from .primary import is_lost
from .time_limits import ANSWER_TIMEOUT, deadline

# A rush is at least this many calls, each within LINGER seconds after the one before.
RUSH = 10
# In a rush, the connection is kept for this many seconds after a statement.
LINGER = 0.02
# If a statement takes longer than this, in seconds, other calls no longer wait for its end.
PATIENCE = 0.1


class _Call(NamedTuple):
    job: Job
    inserted: asyncio.Future[bool]

    def answer(self, inserted: bool) -> None:
        if not self.inserted.done():
            self.inserted.set_result(inserted)


class GroupCommit:
    """Inserts single jobs in one event loop. Each is committed when its call returns.

    A single call takes a connection of the pool, or one that a running node keeps. Calls that come
    while a statement runs share the next statement, which is sent as soon as the first one has
    ended. If the database refuses a statement, its jobs are tried in halves, so that a bad job
    fails only its own call.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[_Call] = []
        # The calls whose jobs are inserted now, and the calls of the running statement.
        self._taken: Sequence[_Call] = ()
        self._sent: Sequence[_Call] = ()
        self._alone = 0
        self._serving: asyncio.Task[None] | None = None
        # Without SQLAlchemy, a statement takes half of the CPU time.
        self._driver: psycopg.AsyncConnection | None = None
        self._idle: asyncio.Future[None] | None = None
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
                if not self._is_shared(job) or not await self._insert_with_others(job):
                    await self._insert_alone(job)
        finally:
            self._last_call = loop.time()

    async def close(self) -> None:
        """Give back the connection that is kept."""
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
            try:
                async with connections as connection:
                    await insert_jobs(connection, [job], database.prefix)
            except DBAPIError as error:
                if not database.needs_transactions_after(error):
                    raise
            else:
                return
        async with database.transaction() as connection:
            await insert_jobs(connection, [job], database.prefix)

    async def _insert_with_others(self, job: Job) -> bool:
        loop = asyncio.get_running_loop()
        call = _Call(job, loop.create_future())
        self._waiting.append(call)
        if self._serving is None:
            # In a context of its own, since the task outlives the call.
            self._serving = loop.create_task(self._serve(), name="oban-enqueue", context=Context())
        self._wake_up()
        return await call.inserted

    async def _serve(self) -> None:
        try:
            async with self._database.autocommit() as connection:
                try:
                    if self._database.engine.dialect.driver == "psycopg":
                        self._driver = driver_of(connection)
                    await self._insert_waiting(connection)
                except BaseException:
                    # The connection may be in any state, so it must not be used again.
                    await connection.invalidate()
                    raise
        except Exception as error:
            # These jobs may have been inserted or not.
            for call in self._sent:
                if not call.inserted.done():
                    call.inserted.set_exception(error)
        finally:
            self._serving = self._driver = None
            self._refer_to_pool([*self._taken, *self._waiting])
            self._taken, self._sent, self._waiting = (), (), []

    async def _insert_waiting(self, connection: AsyncConnection) -> None:
        while await self._are_calls_waiting():
            taken, self._waiting = self._waiting[:MOST_ROWS], self._waiting[MOST_ROWS:]
            # Leaves out cancelled calls.
            self._taken = [call for call in taken if not call.inserted.done()]
            if self._taken:
                await self._insert(self._taken, connection)

    async def _are_calls_waiting(self) -> bool:
        if not self._waiting and self._rush >= RUSH:
            loop = asyncio.get_running_loop()
            self._idle = loop.create_future()
            timer = loop.call_later(LINGER, self._wake_up)
            await self._idle
            timer.cancel()
        return bool(self._waiting)

    async def _insert(self, calls: Sequence[_Call], connection: AsyncConnection) -> None:
        if await self._send(calls, connection):
            for call in calls:
                call.answer(True)
            self._publish([call.job for call in calls])
        elif len(calls) == 1:
            # Alone, the job fails with the error that the engine raises.
            self._refer_to_pool(calls)
        else:
            middle = len(calls) // 2
            for half in (calls[:middle], calls[middle:]):
                await self._insert(half, connection)

    async def _send(self, calls: Sequence[_Call], connection: AsyncConnection) -> bool:
        """Insert the jobs; false if they can't be inserted together."""
        try:
            batches = [*encoded([call.job for call in calls])]
        except (TypeError, ValueError):
            return False
        if len(batches) > 1:
            return False
        batch = batches[0]
        self._sent = calls
        patience = asyncio.get_running_loop().call_later(PATIENCE, self._lose_patience)
        try:
            async with deadline(ANSWER_TIMEOUT):
                rows = await execute(
                    self._driver or connection, batch.make, batch.parameters, self._database.prefix
                )
                fill_from(rows, batch.jobs)
                return True
        except psycopg.Error as error:
            # If the connection is lost, this raises SQLAlchemy's error.
            await connection.execute(select(1))
            if is_lost(error):
                # A standby has inserted nothing, so the calls can try again on the primary.
                self._sent = ()
                raise
            return False
        except DBAPIError as error:
            if error.connection_invalidated:
                raise
            return False
        finally:
            patience.cancel()
            self._slow = False

    def _lose_patience(self) -> None:
        self._slow = True
        waiting, self._waiting = self._waiting, []
        self._refer_to_pool(waiting)

    def _refer_to_pool(self, calls: Sequence[_Call]) -> None:
        for call in calls:
            call.answer(False)

    def _wake_up(self) -> None:
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def _publish(self, jobs: Sequence[Job]) -> None:
        wakeups.publish(self._database.address, self._database.prefix, wakeup(jobs))
