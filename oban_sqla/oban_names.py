"""`ObanNames`: methods of `Oban` under their names in Oban for Python, for users who know it."""

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager

import psycopg

from .enqueue.session_of import UnitOfWork
from .manage.job_management import JobManagement
from .manage.job_update import Changes
from .models import Job
from .queue_orders import QueueOrders
from .runtime.psycopg_connection import psycopg_connection


class ObanNames(JobManagement, QueueOrders):
    """Each method calls the method that its docstring names."""

    async def cancel_job(self, job: Job | int, *, conn: UnitOfWork | None = None) -> None:
        """`cancel_jobs` for one job, by its name in Oban."""
        await self.cancel_jobs(job, conn=conn)

    async def cancel_many_jobs(
        self, jobs: Iterable[Job | int], *, conn: UnitOfWork | None = None
    ) -> int:
        """`cancel_jobs`, by its name in Oban."""
        return await self.cancel_jobs(jobs, conn=conn)

    async def retry_job(self, job: Job | int, *, conn: UnitOfWork | None = None) -> None:
        """`retry_jobs` for one job, by its name in Oban."""
        await self.retry_jobs(job, conn=conn)

    async def retry_many_jobs(
        self, jobs: Iterable[Job | int], *, conn: UnitOfWork | None = None
    ) -> int:
        """`retry_jobs`, by its name in Oban."""
        return await self.retry_jobs(jobs, conn=conn)

    async def delete_job(self, job: Job | int, *, conn: UnitOfWork | None = None) -> None:
        """`delete_jobs` for one job, by its name in Oban."""
        await self.delete_jobs(job, conn=conn)

    async def delete_many_jobs(
        self, jobs: Iterable[Job | int], *, conn: UnitOfWork | None = None
    ) -> int:
        """`delete_jobs`, by its name in Oban."""
        return await self.delete_jobs(jobs, conn=conn)

    async def update_job(
        self, job: Job | int, changes: Changes, *, conn: UnitOfWork | None = None
    ) -> Job:
        """`update_jobs` for one job, by its name in Oban; `LookupError` if there is no such job."""
        updated = await self.update_jobs(job, changes, conn=conn)
        if not updated:
            raise LookupError(f"there is no job {job!r}")
        return updated[0]

    async def update_many_jobs(
        self, jobs: Iterable[Job | int], changes: Changes, *, conn: UnitOfWork | None = None
    ) -> list[Job]:
        """`update_jobs`, by its name in Oban."""
        return await self.update_jobs(jobs, changes, conn=conn)

    async def pause_all_queues(self, *, node: str | None = None) -> None:
        """`pause_queue("*")`, by its name in Oban."""
        await self.pause_queue("*", node=node)

    async def resume_all_queues(self, *, node: str | None = None) -> None:
        """`resume_queue("*")`, by its name in Oban."""
        await self.resume_queue("*", node=node)

    def _connection(self) -> AbstractAsyncContextManager[psycopg.AsyncConnection]:
        """`connection`, by its name in Oban."""
        return psycopg_connection(self._database)
