"""Stage: promote due `scheduled` and `retryable` jobs to `available`."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    DateTime,
    Executable,
    Function,
    Integer,
    Select,
    Subquery,
    TableValuedAlias,
    Text,
    any_,
    bindparam,
    case,
    column,
    func,
    literal,
    or_,
    select,
    true,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT, array

from ..clock import EVER, NEVER, database_now, seconds
from ..models import JobState
from ..models.state import STAGEABLE
from ..models.types import UTCDateTime, job_state
from .announce import notify, queue_news
from .states import constant, state_in
from .tables import JOB, JOBS

# The highest priority is 0.
LOWEST_PRIORITY = 9

_ORDER: tuple[Any, ...] = (JOB.scheduled_at, JOB.id)


class Position(NamedTuple):
    """A point in the order of staging. A `scheduled_at` of `None` is before all times."""

    scheduled_at: datetime | None = None
    id: int = -(2**63)


FRONT = Position()


def behind(position: Position) -> dict[str, Any]:
    """The parameters with which `stage` begins after a position."""
    at = position.scheduled_at
    naive = None if at is None else at.astimezone(UTC).replace(tzinfo=None)
    return {"after_at": naive, "after_id": position.id}


class Staged(NamedTuple):
    """The row that `stage` returns."""

    staged: int
    """The number of promoted jobs."""
    queues: Sequence[str] | None
    """The queues of the promoted jobs; `None` for none."""
    first: int
    """How many of the promoted jobs are in the first batch."""
    last_at: datetime | None
    """When the last job of that batch was due, in UTC, perhaps naive. `None` for no job, or for a
    time that Python can't represent."""
    last_id: int | None
    skipped: bool
    """Whether locked jobs before the last one were skipped."""
    now: float
    """Seconds of the epoch, by the database's clock."""
    next_in: float | None
    """Seconds until the next job is due; `None` for no job."""
    sent: int
    """The number of notifications."""


@lru_cache(maxsize=64)
def stage(
    *,
    prefix: str | None = None,
    now: datetime | None = None,
    of_queues: bool = False,
    shared: bool = False,
) -> Executable:
    """Promote the first `batch` due jobs of all queues, or of `queue_names`, and announce them.

    The statement begins at the front, or `behind` a position. If `shared`, it also promotes `share`
    jobs of each priority of each queue in `sharing`, so that a queue with many due jobs can't delay
    the other queues. Locked jobs are skipped.

    Returns one row, `Staged`.
    """
    time = database_now(now)
    due = _after(select(*_ORDER), time).where(state_in(*STAGEABLE))
    if of_queues:
        due = due.where(JOB.queue == any_(bindparam("queue_names", type_=ARRAY(Text))))
    batch = bindparam("batch", type_=Integer)
    # A subquery hides the number from the planner. In a table that was not analyzed, the planner
    # expects less than one batch of due jobs, and would sort them all.
    most = select(batch).scalar_subquery()
    first = due.order_by(*_ORDER).limit(most).with_for_update(skip_locked=True).cte("first")
    chosen = select(first.c.id)
    every = union_all(chosen, select(_shares(time).c.id)) if shared else chosen
    staged = (
        update(JOBS)
        .where(JOB.id == any_(func.array(every.scalar_subquery(), type_=ARRAY(BIGINT))))
        .values(state=constant(JobState.AVAILABLE))
        .returning(JOB.queue)
        .cte("staged")
    )
    queues = select(staged.c.queue).distinct().subquery("queues")
    sent = notify(queue_news(queues.c.queue), prefix).subquery()
    count = select(func.count()).select_from(first).scalar_subquery()
    end = select(first).order_by(first.c.scheduled_at.desc(), first.c.id.desc()).limit(1).cte("end")
    # This CTE sees the table as before the update: the promoted jobs are still due here.
    seen = due.order_by(*_ORDER).limit(count + 1).subquery("seen")
    last = tuple_(*(select(c).scalar_subquery() for c in end.c))
    on_the_way = or_(count < batch, tuple_(*seen.c) <= last)
    met = select(func.count()).select_from(seen).where(on_the_way).scalar_subquery()
    next_at = (
        select(JOB.scheduled_at)
        .where(state_in(*STAGEABLE), JOB.scheduled_at > time, JOB.scheduled_at < NEVER)
        .order_by(JOB.scheduled_at)
        .limit(1)
        .scalar_subquery()
    )
    held = end.c.scheduled_at >= literal(datetime.min, DateTime)
    return select(
        select(func.count()).select_from(staged).scalar_subquery().label("staged"),
        select(func.array_agg(queues.c.queue, type_=ARRAY(Text))).scalar_subquery().label("queues"),
        count.label("first"),
        select(case((held, end.c.scheduled_at))).scalar_subquery().label("last_at"),
        select(end.c.id).scalar_subquery().label("last_id"),
        (met > count).label("skipped"),
        seconds(time).label("now"),
        seconds(next_at - time).label("next_in"),
        select(func.count()).select_from(sent).scalar_subquery().label("sent"),
    )


def _after(jobs: Select[Any], time: ColumnElement[Any]) -> Select[Any]:
    after_at = func.coalesce(bindparam("after_at", None, type_=UTCDateTime), EVER)
    after_id = bindparam("after_id", FRONT.id, type_=BIGINT)
    return jobs.where(JOB.scheduled_at <= time, tuple_(*_ORDER) > tuple_(after_at, after_id))


def _shares(time: ColumnElement[Any]) -> Subquery:
    """The first due jobs of each state, queue and priority, with one index lookup for each."""
    states = array([constant(state) for state in STAGEABLE])
    state = _each(func.unnest(states), "state", job_state)
    queue = _each(func.unnest(bindparam("sharing", type_=ARRAY(Text))), "queue", Text)
    priority = _each(func.generate_series(0, LOWEST_PRIORITY), "priority", Integer)
    lane = (
        _after(select(JOB.id), time)
        .where(JOB.state == state.c.state, JOB.queue == queue.c.queue)
        .where(JOB.priority == priority.c.priority)
        .order_by(*_ORDER)
        .limit(bindparam("share", type_=Integer))
        .with_for_update(skip_locked=True)
        .lateral("lane")
    )
    lanes = state.join(queue, true()).join(priority, true()).join(lane, true())
    return select(lane.c.id).select_from(lanes).subquery("shares")


def _each(values: Function[Any], name: str, type_: Any) -> TableValuedAlias:
    return values.table_valued(column(name, type_)).render_derived(name=f"each_{name}")
