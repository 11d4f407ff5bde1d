"""`Enqueueing`, a part of `Oban`: enqueue jobs."""

from collections.abc import AsyncIterable, Iterable

from .enqueue.chunks import enqueue_stream
from .enqueue.enqueue import Conn, each, enqueue
from .enqueue.gc_pause import slices
from .models import Job
from .runtime.database import Database
from .runtime.enqueuer import Enqueuer


class Enqueueing:
    """Enqueue jobs in the transaction of `conn`, or in one of their own."""

    _database: Database
    _enqueuer: Enqueuer

    async def enqueue(self, job: Job, /, *, conn: Conn | None = None) -> Job:
        """Enqueue a job in the transaction of `conn`, or in one of its own, and return the job.

        It has its id afterwards; if `conn` is a session, after the flush.
        """
        if conn is None:
            await self._enqueuer.enqueue(job)
        else:
            await enqueue([job], conn, prefix=self._database.prefix)
        return job

    async def enqueue_many(
        self, /, *jobs: Job | Iterable[Job], conn: Conn | None = None
    ) -> list[Job]:
        """Enqueue any number of jobs, given one by one or in iterables: all of them, or none.

        The flush of a session inserts the jobs. Otherwise one statement inserts up to 1,000 jobs.
        Without `conn`, the database inserts jobs while an iterable still makes others.
        `enqueue_stream` keeps no jobs, and takes async iterables.

        `TypeError` or `ValueError` for an object that is not a job, a job given twice, and a `conn`
        of another kind; nothing is sent through `conn` then.
        """
        if conn is None:
            return await self._enqueuer.enqueue_many(each(jobs))
        gathered = [job for some in slices(each(jobs)) for job in some]
        await enqueue(gathered, conn, prefix=self._database.prefix)
        return gathered

    async def enqueue_stream(
        self, jobs: Iterable[Job] | AsyncIterable[Job], /, *, conn: Conn | None = None
    ) -> int:
        """Enqueue jobs from an iterable, async or not, without keeping them; return their number.

        Memory does not grow with the number of jobs: each statement sends 1,000 jobs, which are
        then forgotten. All jobs are in one transaction, that of `conn` or an own one. A session
        also sends them at once, and does not hold them. Duplicates of unique jobs are not counted.

        Errors of the iterable are raised here. Without `conn`, no job is enqueued then. With
        `conn`, earlier jobs were sent already, so roll back its transaction, or a savepoint.
        The other errors are those of `enqueue_many`.
        """
        if conn is None:
            return await self._enqueuer.enqueue_stream(jobs)
        return await enqueue_stream(jobs, conn, self._database.prefix)
