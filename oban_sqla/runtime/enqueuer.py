"""`Enqueuer`: enqueues jobs in transactions of the instance's own."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from weakref import WeakKeyDictionary

from .. import wakeups
from ..enqueue import references
from ..enqueue.chunks import Insertion, Source, chunks, enqueue_stream
from ..enqueue.enqueue import prepare, refuse_twice
from ..enqueue.from_rows import make_new
from ..enqueue.observed import is_observed, observed
from ..models import Job
from ..models.unique_job import restore
from ..wakeups import Wakeup
from .database import Database
from .group_commit import GroupCommit


class Enqueuer:
    """Enqueues jobs, and wakes the instances of this process after the commit."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._groups: WeakKeyDictionary[asyncio.AbstractEventLoop, GroupCommit] = (
            WeakKeyDictionary()
        )

    async def enqueue(self, job: Job) -> None:
        """Enqueue one job."""
        prepare([job])
        references.refuse_without_key([job])
        loop = asyncio.get_running_loop()
        group = self._groups.get(loop)
        if group is None:
            group = self._groups[loop] = GroupCommit(self._database)
        await group.insert(job)

    async def close(self) -> None:
        """Give back the connection that is kept for this event loop."""
        if group := self._groups.get(asyncio.get_running_loop()):
            await group.close()

    async def enqueue_many(self, jobs: Iterable[Job]) -> list[Job]:
        """Enqueue all jobs, or none, and return them."""
        if not is_observed():
            return await self._enqueue_many(jobs)
        given = [*jobs]
        prepare(given)
        with observed(given):
            return await self._enqueue_many(given)

    async def enqueue_stream(self, jobs: Source) -> int:
        """Enqueue all jobs, or none, without keeping them. Returns the number of inserted jobs."""
        if not is_observed():
            return await self._insert(chunks(jobs))
        # Each chunk has its own event, which ends before the next one begins.
        async with self._database.transaction() as connection:
            count = await enqueue_stream(jobs, connection, self._database.prefix)
        self._wake(Wakeup(queues=None))
        return count

    async def _enqueue_many(self, jobs: Iterable[Job]) -> list[Job]:
        gathered: list[Job] = []

        async def gather() -> AsyncIterator[list[Job]]:
            async for chunk in chunks(jobs):
                yield chunk
                gathered.extend(chunk)
            refuse_twice(gathered)

        try:
            await self._insert(gather())
        except BaseException:
            # Their rows were rolled back, so the jobs are new again.
            for job in gathered:
                restore(job) if job.conflict else make_new(job)
            raise
        return gathered

    async def _insert(self, given: AsyncIterator[list[Job]]) -> int:
        database = self._database
        insertion = None
        async with AsyncExitStack() as stack:
            async for jobs in given:
                # The first chunk opens the transaction: without jobs, no connection is needed.
                if insertion is None:
                    connection = await stack.enter_async_context(database.transaction())
                    insertion = Insertion(connection, database.prefix)
                    await stack.enter_async_context(insertion)
                await insertion.add(jobs)
        if insertion is None:
            return 0
        self._wake(insertion.wakeup)
        return insertion.count

    def _wake(self, wakeup: Wakeup) -> None:
        wakeups.publish(self._database.address, self._database.prefix, wakeup)
