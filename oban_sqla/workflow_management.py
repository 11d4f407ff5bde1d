"""`WorkflowManagement`, a part of `Oban`: cancel, retry and wait for workflows."""

import asyncio
from typing import Any

from sqlalchemy import Select, Text, inspect, literal, select
from sqlalchemy.orm import aliased, selectinload

from .manage.job_management import JobManagement
from .manage.job_selection import UnitOfWork
from .models import Job, JobState
from .models.state import FINISHED
from .runtime.waiter import Waiter
from .workflows.chains import BlockedChain, blocked
from .workflows.graph import STEP
from .workflows.step import Step
from .workflows.workflow import Workflow

LOOK_AGAIN = 0.02
"""Seconds until the next look at a workflow whose jobs have ended, but which has not."""
_FAILED = (JobState.DISCARDED, JobState.CANCELLED)


class WorkflowManagement(JobManagement):
    """Manage whole workflows; `conn` is as for jobs."""

    _waiter: Waiter

    async def cancel(self, workflow: Workflow | str, *, conn: UnitOfWork | None = None) -> int:
        """Cancel the steps of a workflow that have not ended, and return their number.

        workflow: the workflow, or its id. Workflows within it are cancelled, too.

        Steps of `add_last` still run when all other steps have ended.
        """
        steps = _steps_of(workflow).where(Step.kind == STEP)
        unfinished = Job.state.not_in(FINISHED)
        return await self.cancel_jobs(select(Job).where(Job.id.in_(steps), unfinished), conn=conn)

    async def retry(self, workflow: Workflow | str, *, conn: UnitOfWork | None = None) -> int:
        """Run the discarded and cancelled steps of a workflow again, and return their number.

        workflow: the workflow, or its id. If a step was cancelled because another step had failed,
            it waits for that step again, and is not counted.
        """
        steps = _steps_of(workflow).where(Step.cause.is_(None), Step.ended.is_not(None))
        return await self.retry_jobs(
            select(Job).where(Job.id.in_(steps), Job.state.in_(_FAILED)), conn=conn
        )

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
                while True:
                    ended, ids = await self._look_at(identity(workflow))
                    if ended is not None:
                        return ended
                    if ids:
                        await self._waiter.wait(ids)
                    # The last outcome is there, and what follows from it may have been put off.
                    await asyncio.sleep(LOOK_AGAIN)
        except TimeoutError:
            if not limit.expired():
                raise
            raise TimeoutError(
                f"{workflow!r} has not ended within {longest:g} s;"
                f" `oban-sqla workflows show {identity(workflow)}` says how it is"
            ) from None

    async def _look_at(self, id: str) -> tuple[Workflow | None, list[int]]:
        """The workflow if it has ended, and the ids of its unfinished jobs."""
        async with self._database.session() as session:
            query = select(Workflow).where(Workflow.id == id).options(selectinload(Workflow.jobs))
            found = (await session.scalars(query)).one_or_none()
            if found is None:
                raise LookupError(f"there is no workflow {id!r}")
            if found.is_finished:
                return found, []
            return None, [job.id for job in found.jobs if not job.is_finished]


def identity(workflow: Workflow | str) -> str:
    """The id of a workflow, without the SELECT that `workflow.id` sends if it has expired."""
    if isinstance(workflow, str):
        return workflow
    if not isinstance(workflow, Workflow):
        raise TypeError(f"a workflow, or its id, is expected, not {workflow!r}")
    state = inspect(workflow)
    return str(state.identity[0] if state.identity else state.dict["id"])


def _steps_of(workflow: Workflow | str) -> Select[Any]:
    """The jobs of a workflow, and of the workflows within it."""
    known = select(literal(identity(workflow), Text).label("id")).cte("within", recursive=True)
    inner = aliased(Workflow)
    within = known.union_all(select(inner.id).where(inner.parent_id == known.c.id))
    return select(Step.job_id).where(Step.workflow_id.in_(select(within.c.id)))
