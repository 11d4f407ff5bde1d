"""`Waiting`, a part of `Oban`: wait for the outcomes of jobs."""

import asyncio
from collections.abc import Iterable
from datetime import timedelta

from .models import Job, validation
from .models.job_id import ids_of, job_or_id
from .runtime.waiter import Waiter


class Waiting:
    """Wait for jobs to end."""

    _waiter: Waiter

    async def wait(
        self,
        job: Job | int,
        *,
        timeout: float | timedelta | None = None,  # noqa: ASYNC109 - it says what was not finished
    ) -> Job:
        """Wait until a job is completed, discarded or cancelled, and return the finished job.

        job: a committed job, or its id. `wait_many` describes the rest.
        """
        (done,) = await self.wait_many([job], timeout=timeout)
        return done

    async def wait_many(
        self,
        jobs: Iterable[Job | int],
        *,
        timeout: float | timedelta | None = None,  # noqa: ASYNC109
    ) -> list[Job]:
        """Wait until jobs are completed, discarded or cancelled, and return the finished jobs.

        jobs: committed jobs, or their ids. They are returned in the order given, each once. A
            returned job has the worker's value in `recorded`, and its errors in `errors`.
        timeout: seconds or a `timedelta`; `TimeoutError` if the jobs take longer.

        The node that runs a job announces its outcome as soon as it is committed. Nodes do not
        announce a cancellation: it is found within `fallback_interval`, or within `poll_interval`
        while LISTEN does not work. All waiters of an instance share one listening connection,
        their statements, and one connection of the pool.

        `LookupError` for a job that does not exist; `ValueError` for a job without an id. An error
        of the database is raised if the first query fails; a wait survives later outages.
        """
        ids = ids_of([job_or_id(one) for one in jobs])
        longest = seconds_of(timeout)
        limit = asyncio.timeout(longest)
        try:
            async with limit:
                return await self._waiter.wait(ids)
        except TimeoutError:
            if not limit.expired():
                raise
            some = f"job {ids[0]} was not" if len(ids) == 1 else f"{len(ids)} jobs were not all"
            raise TimeoutError(
                f"{some} finished within {longest:g} s; `oban-sqla jobs show {ids[0]}` shows the"
                " job, and `oban-sqla doctor` checks whether a node runs its queue"
            ) from None


def seconds_of(timeout: float | timedelta | None) -> float | None:
    """The seconds of a timeout; `None` for no timeout."""
    return None if timeout is None else validation.delay("timeout", timeout).total_seconds()
