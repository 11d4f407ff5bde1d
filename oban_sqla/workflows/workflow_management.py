"""`WorkflowManagement`, a part of `Oban`: enqueue, cancel, retry and wait for workflows."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any, Protocol, overload

from sqlalchemy import Select, Text, literal, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, aliased, selectinload

from ..enqueue.enqueue import Conn
from ..enqueue.session_of import BIND, UnitOfWork, unscoped
from ..enqueueing import Enqueueing
from ..models import Job, JobState
from ..models.state import FINISHED
from ..runtime.database import Database
from ..waiting import Waiting, seconds_of
from .blocked_chains import BlockedChain, blocked
from .enqueue import enqueue_workflow
from .graph import LAST, STEP
from .step import Step
from .workflow import Workflow, known_id

FIRST_PAUSE = 0.02
"""Seconds until a workflow is read again whose jobs have ended, but which has not."""
LONGEST_PAUSE = 1.0
"""The most seconds between two such reads."""
_FAILED = (JobState.DISCARDED, JobState.CANCELLED)


class ManagesJobs(Protocol):
    """The methods for jobs by which workflows are cancelled and retried."""

    _database: Database

    async def cancel_jobs(self, which: Select[Any], *, conn: UnitOfWork | None = None) -> int: ...

    async def retry_jobs(self, which: Select[Any], *, conn: UnitOfWork | None = None) -> int: ...


class WorkflowManagement(Enqueueing, Waiting):
    """Manage whole workflows; `conn` is as for jobs."""

    @overload
    async def enqueue(self, job: Job, /, *, conn: Conn | None = None) -> Job: ...
    @overload
    async def enqueue(self, job: Workflow, /, *, conn: Conn | None = None) -> Workflow: ...
    async def enqueue(self, job: Job | Workflow, /, *, conn: Conn | None = None) -> Job | Workflow:
        """Enqueue a job, or a workflow, in the transaction of `conn`, or in one of its own.

        It is returned, and has its id afterwards; if `conn` is a session, after the flush.
        """
        if not isinstance(job, Workflow):
            return await super().enqueue(job, conn=conn)
        await enqueue_workflow(job, conn, self._database)
        return job

    @overload
    async def wait(
        self,
        job: Job | int,
        *,
        timeout: float | timedelta | None = None,  # noqa: ASYNC109
    ) -> Job: ...
    @overload
    async def wait(
        self,
        job: Workflow,
        *,
        timeout: float | timedelta | None = None,  # noqa: ASYNC109
    ) -> Workflow: ...
    async def wait(
        self,
        job: Job | int | Workflow,
        *,
        timeout: float | timedelta | None = None,  # noqa: ASYNC109 - it says what was not finished
    ) -> Job | Workflow:
        """Wait until a job is completed, discarded or cancelled, and return the finished job.

        For a workflow, wait until all its steps have ended, also those of workflows within it, and
        return the workflow with its jobs. The call does not wait for callbacks of a batch. The
        `recorded` of the workflow is the value of the last step.

        job: a committed job, its id, or a workflow. `wait_many` describes the rest.
        """
        if not isinstance(job, Workflow):
            return await super().wait(job, timeout=timeout)
        return await self._wait_for_workflow(job, seconds_of(timeout))

    async def cancel(
        self: ManagesJobs, workflow: Workflow | str, *, conn: UnitOfWork | None = None
    ) -> int:
        """Cancel the steps of a workflow that have not ended, and return their number.

        workflow: the workflow, or its id. Workflows within it are cancelled, too.

        Steps of `add_last` still run when all other steps have ended.
        """
        steps = _steps_of(workflow).where(Step.kind == STEP)
        jobs = select(Job).where(Job.id.in_(steps), Job.state.not_in(FINISHED))
        async with _locking(self._database, workflow, conn) as session:
            return await self.cancel_jobs(jobs, conn=session)

    async def retry(
        self: ManagesJobs, workflow: Workflow | str, *, conn: UnitOfWork | None = None
    ) -> int:
        """Run the discarded and cancelled steps of a workflow again, and return their number.

        workflow: the workflow, or its id. If a step was cancelled because another step had failed,
            it waits for that step again, and is not counted.
        """
        steps = _steps_of(workflow).where(Step.cause.is_(None), Step.ended.is_not(None))
        jobs = select(Job).where(Job.id.in_(steps), Job.state.in_(_FAILED))
        async with _locking(self._database, workflow, conn) as session:
            return await self.retry_jobs(jobs, conn=session)

    async def blocked_chains(self) -> list[BlockedChain]:
        """The chains that a discarded job holds, since its worker says `on_discard="hold"`.

        `retry_jobs` runs that job again; when it is completed, or deleted, the chain goes on.
        """
        return [BlockedChain(*row) for row in await self._database.fetch(blocked())]

    async def _wait_for_workflow(self, workflow: Workflow, longest: float | None) -> Workflow:
        """Wait until a workflow has ended, and return it with its jobs."""
        limit = asyncio.timeout(longest)
        try:
            async with limit:
                pause = FIRST_PAUSE
                while True:
                    ended, ids = await self._read(workflow)
                    if ended is not None:
                        return ended
                    pause = FIRST_PAUSE if ids else min(2 * pause, LONGEST_PAUSE)
                    if ids:
                        # A job may be deleted meanwhile: its step has ended then.
                        with suppress(LookupError):
                            await self._waiter.wait(ids)
                    # The last outcome is written, but the release that follows from it may be
                    # postponed.
                    await asyncio.sleep(pause)
        except TimeoutError:
            if not limit.expired():
                raise
            raise TimeoutError(
                f"{workflow!r} has not ended within {longest:g} s;"
                f" `oban-sqla workflows show {identity(workflow)}` shows its state"
            ) from None

    async def _read(self, workflow: Workflow) -> tuple[Workflow | None, list[int]]:
        """The workflow with its jobs if it has ended, otherwise the ids of the unfinished jobs."""
        id = identity(workflow)
        async with self._database.session() as session:
            state = await session.scalar(select(Workflow.state).where(Workflow.id == id))
            if state is None:
                raise LookupError(f"there is no workflow {id!r}")
            if state == "executing":
                steps = _steps_of(workflow).where(Step.kind.in_((STEP, LAST)))
                unfinished = steps.join(Job, Job.id == Step.job_id).where(
                    Step.ended.is_(None), Job.state.not_in(FINISHED)
                )
                return None, [*await session.scalars(unfinished)]
            query = select(Workflow).where(Workflow.id == id).options(selectinload(Workflow.jobs))
            found = (await session.scalars(query)).one_or_none()
            # The workflow may have been retried meanwhile.
            return (found if found is not None and found.is_finished else None), []


def identity(workflow: Workflow | str) -> str:
    """The id of a workflow."""
    if isinstance(workflow, str):
        return workflow
    if not isinstance(workflow, Workflow):
        raise TypeError(f"a workflow, or its id, is expected, not {workflow!r}")
    return known_id(workflow)


@asynccontextmanager
async def _locking(
    database: Database, workflow: Workflow | str, conn: UnitOfWork | None
) -> AsyncIterator[UnitOfWork]:
    """The session of `conn`, or a new one, in which the graph of a workflow is locked.

    A step that adds steps locks the graph before its own job. In the same order, the two
    transactions can't deadlock, and the new steps are seen.
    """
    own = Step.workflow_id == identity(workflow)
    outermost = select(Step.path[1]).where(own).limit(1).scalar_subquery()
    lock = select(Workflow.id).where(Workflow.id == outermost).with_for_update(key_share=True)
    if conn is None:
        async with database.session() as session:
            await session.execute(lock)
            yield session
        return
    given = unscoped(conn)
    if isinstance(given, AsyncSession):
        await given.execute(lock, bind_arguments=BIND)
    elif isinstance(given, Session):
        given.execute(lock, bind_arguments=BIND)
    yield conn


def _steps_of(workflow: Workflow | str) -> Select[Any]:
    """The jobs of a workflow, and of the workflows within it."""
    known = select(literal(identity(workflow), Text).label("id")).cte("within", recursive=True)
    inner = aliased(Workflow)
    within = known.union_all(select(inner.id).where(inner.parent_id == known.c.id))
    return select(Step.job_id).where(Step.workflow_id.in_(select(within.c.id)))
