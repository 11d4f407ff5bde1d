"""`WorkflowPruner`: deletes workflows past their retention, each with all its jobs."""

import math
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from sqlalchemy import CTE, ColumnElement, Executable, Float, Text, bindparam, delete, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import aliased

from ..clock import LONGEST_INTERVAL, database_now, interval
from ..config.retention import Retention
from ..events import PruneStop
from ..models import Job
from ..models.state import FINISHED
from ..runtime.database import Database
from ..runtime.service import Emit, Service
from .step import Step
from .workflow import Workflow

INTERVAL = 60.0
BATCH = 100
"""The most workflows that a pass deletes, each in a transaction of its own."""


class WorkflowPruner(Service):
    """Deletes ended workflows with all their jobs, on the leader.

    The state of the workflow decides its retention. While a callback of a batch has not ended, the
    batch is kept. If rows of a workflow are locked, or the server refuses to delete it, the next
    pass tries again.
    """

    name = "workflow pruner"
    begins_in = 2.0

    def __init__(
        self,
        database: Database,
        emit: Emit,
        *,
        is_leader: Callable[[], bool],
        retention: Retention,
    ) -> None:
        super().__init__(emit)
        self._database = database
        self._is_leader = is_leader
        self._ages = {state: age for state, age in retention.states.items() if age is not None}

    async def run_once(self) -> float:
        """Delete some workflows for each state. If there are more, the next pass comes at once."""
        if not self._is_leader():
            return math.inf
        started = time.monotonic()
        count, full, failures = 0, False, []
        for state, age in self._ages.items():
            params = {"state": str(state), "age": min(age, LONGEST_INTERVAL)}
            ids = [id for (id,) in await self._database.fetch(expired(), params)]
            refused = 0
            for id in ids:
                try:
                    (row,) = await self._database.fetch(delete_workflow(), {"id": id})
                except DBAPIError as error:
                    if error.connection_invalidated:
                        raise
                    failures.append(error)
                    refused += 1
                else:
                    count += row.jobs
                    refused += not row.gone
            full = full or (len(ids) == BATCH and refused < BATCH)
        if count:
            self._emit("prune_stop", PruneStop(count, time.monotonic() - started))
        if failures:
            raise failures[0]
        return 0.0 if full else INTERVAL


@lru_cache(maxsize=1)
def expired() -> Executable:
    """The ids of workflows of the `state` that ended more than `age` seconds ago."""
    cutoff = database_now() - interval(bindparam("age", type_=Float))
    unfinished = (
        select(Job.id)
        .join(Step, Step.job_id == Job.id)
        .where(Step.workflow_id == Workflow.id, Job.state.not_in(FINISHED))
        .exists()
    )
    return (
        select(Workflow.id)
        .where(
            Workflow.parent_id.is_(None),
            Workflow.state == bindparam("state", type_=Text),
            Workflow.completed_at < cutoff,
            ~unfinished,
        )
        .order_by(Workflow.completed_at)
        .limit(BATCH)
    )


@lru_cache(maxsize=1)
def delete_workflow() -> Executable:
    """Delete the workflow `id`, the workflows within it, and their jobs.

    Returns the number of `jobs`, and whether the workflow is `gone`. If another transaction has
    locked one of the rows, nothing is deleted.
    """
    outermost = (
        select(Workflow.id)
        .where(Workflow.id == bindparam("id", type_=Text))
        .with_for_update(skip_locked=True)
        .cte("outermost")
    )
    tree: Any = select(outermost.c.id).cte("tree", recursive=True)
    inner = aliased(Workflow, name="inner")
    tree = tree.union_all(select(inner.id).where(inner.parent_id == tree.c.id))
    within = select(tree.c.id)
    own = select(Step.job_id).where(Step.workflow_id.in_(within))
    free = (
        select(Job.id)
        .where(Job.id.in_(own))
        .order_by(Job.id)
        .with_for_update(skip_locked=True)
        .cte("free")
    )
    jobs_there = select(func.count()).where(Job.id.in_(own)).scalar_subquery()
    are_free = _count(free) == jobs_there
    steps = delete(Step).where(Step.workflow_id.in_(within), are_free).returning(Step.job_id)
    gone = delete(Workflow).where(Workflow.id.in_(within), are_free).returning(Workflow.id)
    jobs = delete(Job).where(Job.id.in_(select(free.c.id)), are_free).returning(Job.id)
    return select(
        _count(jobs.cte("jobs")).label("jobs"),
        (_count(gone.cte("gone")) > 0).label("gone"),
        _count(steps.cte("steps")).label("steps"),
    )


def _count(rows: CTE) -> ColumnElement[int]:
    return select(func.count()).select_from(rows).scalar_subquery()
