"""Insert any number of jobs in one transaction, chunk by chunk."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeAlias

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session

from ..models import Job
from ..wakeups import Wakeup
from . import encoding, gc_pause, references
from .batch import MOST_ROWS, MOST_UNIQUE, Batch, encoded, wakeup
from .connections import execute, insert_unique_through
from .enqueue import Conn, enqueue, prepare
from .from_rows import fill_from
from .session_of import unscoped
from .unique import apart
from .unit_of_work import insert_outside

Source: TypeAlias = Iterable[Job] | AsyncIterable[Job]


class _Sent(NamedTuple):
    jobs: Sequence[Job]
    rows: asyncio.Task[Sequence[Sequence[Any]]]


class Insertion:
    """A block that inserts jobs in the transaction of a connection. At its end, all are inserted.

    The server inserts a chunk while the client makes and encodes the next one. Unique jobs come
    last, so that all transactions take unique keys in the same order.
    """

    def __init__(self, connection: AsyncConnection, prefix: str | None) -> None:
        self.wakeup = Wakeup()
        self.count = 0
        """The number of inserted jobs, after the end of the block."""
        self._connection = connection
        self._prefix = prefix
        self._unique: list[Job] = []
        self._sent: _Sent | None = None

    async def add(self, jobs: Sequence[Job]) -> None:
        """Send jobs to the server, and return before it has inserted them.

        `TypeError` or `ValueError` for jobs that can't be enqueued.
        """
        prepare(jobs)
        references.refuse_without_key(jobs)
        plain, unique = apart(jobs)
        batches = [*encoded(plain)]
        self._unique += unique
        for batch in batches:
            encoding.refuse_unstorable(self._connection, [batch])
            await self._send(batch)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        sent, self._sent = self._sent, None
        if sent is not None and error is not None:
            sent.rows.cancel()
            await asyncio.gather(sent.rows, return_exceptions=True)
        elif sent is not None:
            self._fill(sent.jobs, await sent.rows)
        if error is None:
            await self._insert_unique()

    async def _send(self, batch: Batch) -> None:
        before = self._sent
        rows = await before.rows if before is not None else ()
        sending = execute(self._connection, batch.make, batch.parameters, self._prefix)
        self._sent = _Sent(batch.jobs, asyncio.create_task(sending))
        # Lets the task send its statement: the following lines run while the server works.
        await asyncio.sleep(0)
        if before is not None:
            self._fill(before.jobs, rows)
        self.wakeup |= batch.wakeup

    def _fill(self, jobs: Sequence[Job], rows: Sequence[Sequence[Any]]) -> None:
        fill_from(rows, jobs)
        self.count += len(jobs)

    async def _insert_unique(self) -> None:
        for start in range(0, len(self._unique), MOST_UNIQUE):
            jobs = self._unique[start : start + MOST_UNIQUE]
            await insert_unique_through(self._connection, jobs, self._prefix)
            self.wakeup |= wakeup(jobs)
            self.count += sum(not job.conflict for job in jobs)


async def enqueue_stream(jobs: Source, conn: Conn, prefix: str | None) -> int:
    """Enqueue jobs through `conn`, one statement per chunk, and return the number of jobs.

    A session inserts the jobs now, in its transaction, and does not hold them.
    """
    session = unscoped(conn)
    count = 0
    async for chunk in chunks(jobs):
        if isinstance(session, AsyncSession | Session):
            prepare(chunk)
        if isinstance(session, AsyncSession):
            await session.run_sync(insert_outside, chunk)
        elif isinstance(session, Session):
            insert_outside(session, chunk)
        else:
            await enqueue(chunk, conn, prefix=prefix)
        count += sum(not job.conflict for job in chunk)
    return count


async def chunks(jobs: Source) -> AsyncIterator[list[Job]]:
    """Split jobs into lists, each for one statement."""
    chunk: list[Job] = []
    async for some in _slices(jobs):
        chunk += some
        if len(chunk) >= MOST_ROWS:
            yield chunk
            chunk = []
        await asyncio.sleep(0)
    if chunk:
        yield chunk


async def _slices(jobs: Source) -> AsyncIterator[list[Job]]:
    if not isinstance(jobs, AsyncIterable):
        for some in gc_pause.slices(jobs):
            yield some
        return
    some = []
    async for job in jobs:
        some.append(job)
        if len(some) == gc_pause.SLICE:
            yield some
            some = []
    yield some
