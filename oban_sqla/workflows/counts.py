"""The counts of jobs by state in the rows of workflows, as Oban Web reads them.

A step's outcome is counted when it is written. The leader counts the waiting and running steps from
time to time, since nothing in this library reads these counts.
"""

from functools import lru_cache
from typing import Any

from sqlalchemy import Executable, Text, cast, func, literal_column, or_, select, true, update
from sqlalchemy.orm import aliased

from ..models import Job, JobState
from .workflow import Workflow

_COUNTED = (
    JobState.SUSPENDED,
    JobState.AVAILABLE,
    JobState.SCHEDULED,
    JobState.EXECUTING,
    JobState.RETRYABLE,
)


@lru_cache(maxsize=1)
def recount() -> Executable:
    """Count the jobs of workflows that have not ended; returns the workflows that have changed.

    Workflows that another transaction has locked are skipped until the next count.
    """
    running = aliased(Workflow, name="running")
    key: Any = literal_column("'workflow_id'", Text)
    id = Job.meta.op("->>", return_type=Text())(key)
    state = cast(Job.state, Text)
    counts = (
        select(
            id.label("id"),
            *(func.count().filter(state == one.value).label(one.value) for one in _COUNTED),
            func.min(Job.attempted_at).label("started_at"),
        )
        .where(
            Job.meta.has_key(key),
            id.in_(select(running.id).where(running.state == "executing")),
        )
        .group_by(id)
        .cte("counts")
    )
    names = [*(one.value for one in _COUNTED), "started_at"]
    old = aliased(Workflow, name="old")
    changed = (
        select(old.id)
        .join(counts, counts.c.id == old.id)
        .where(or_(*(getattr(old, name).is_distinct_from(counts.c[name]) for name in names)))
        .order_by(old.id)
        .with_for_update(of=old, key_share=True, skip_locked=True)
        .cte("changed")
    )
    return (
        update(Workflow)
        .where(
            Workflow.id == counts.c.id,
            # Without a join: the planner expects one row, and would compare all pairs of rows.
            counts.c.id.in_(select(changed.c.id)).is_(true()),
        )
        .values({name: counts.c[name] for name in names})
        .returning(Workflow.id)
    )
