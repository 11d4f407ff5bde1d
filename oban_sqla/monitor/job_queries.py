"""Find jobs by filters. States are read as text, since this version may not know them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Executable,
    Select,
    Text,
    any_,
    case,
    cast,
    column,
    func,
    literal,
    null,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY

from ..clock import database_now, interval, seconds
from ..models import Job, JobState
from ..models.job import COLUMNS
from ..models.types import job_state
from ..statements.claimed import fetchable, representable
from ..statements.ids import one_of
from ..statements.states import constant, state_in
from .excerpts import args_excerpt, error_excerpt
from .readable import readable_columns

_IDS = ARRAY(BigInteger)
MOST_FEW = 20_000
"""Up to this many jobs of a state or a queue are read by the index of states, and sorted by id."""


@dataclass(frozen=True, slots=True)
class Filters:
    """The conditions that a job must match, all of them."""

    ids: tuple[int, ...] = ()
    states: tuple[JobState, ...] = ()
    queue: str | None = None
    worker: str | None = None
    older_than: float | None = None
    """The least seconds since the job was enqueued."""
    newer_than: float | None = None
    """The most seconds since the job was enqueued."""
    args: Mapping[str, Any] | None = None
    """Arguments that the job's arguments must contain."""
    tags: tuple[str, ...] = ()
    """Tags that the job must have."""
    where: tuple[ColumnElement[bool], ...] = ()
    """Further conditions."""


def newest(
    filters: Filters, *, limit: int, cut: bool = False, now: datetime | None = None
) -> Executable:
    """The newest jobs, with columns for a list: `state` is text, `error` the last error's text.

    cut: whether long arguments and errors are cut.

    The rows also have their `age` and the time until they are due (`due_in`), in seconds; NULL if
    Python can't represent the instant.
    """
    time = database_now(now)
    shown: Select[Any] = select(
        Job.id,
        cast(Job.state, Text).label("state"),
        *(Job.queue, Job.worker, Job.tags, Job.attempt, Job.max_attempts),
        *readable_columns(("inserted_at", "scheduled_at")),
        args_excerpt() if cut else fetchable("args", Job.args),
        case((representable(Job.inserted_at), seconds(time - Job.inserted_at))).label("age"),
        case((representable(Job.scheduled_at), seconds(Job.scheduled_at - time))).label("due_in"),
        error_excerpt() if cut else Job.errors[-1]["error"].astext.label("error"),
    )
    return _first(shown.where(*conditions(filters, now)), filters, limit, newest=True)


def whole(ids: Sequence[int]) -> Executable:
    """All columns of jobs, with `state` as text."""
    state = cast(Job.state, Text).label("state")
    columns = [state if one.key == "state" else one for one in readable_columns(COLUMNS)]
    return select(*columns).where(one_of(ids))


def worker_exists(name: str) -> Executable:
    """One row if a job has this worker."""
    return select(literal(1)).where(Job.worker == name).limit(1)


def workers() -> Executable:
    """The names of the workers of all jobs, in order."""
    return select(Job.worker).distinct().order_by(Job.worker)


def tally(filters: Filters, *, limit: int | None, now: datetime | None = None) -> Executable:
    """The `count` and `last` id of the `limit` oldest jobs, by `state`."""
    columns: tuple[Any, ...] = (Job.id, Job.state)
    found = select(*columns).where(*conditions(filters, now))
    chosen = (found if limit is None else _first(found, filters, limit)).subquery("chosen")
    state = cast(chosen.c.state, Text).label("state")
    return select(
        state, func.count().label("count"), func.max(chosen.c.id).label("last")
    ).group_by(chosen.c.state).order_by(chosen.c.state)  # fmt: skip


def page(
    filters: Filters, *, after: int, last: int, limit: int, now: datetime | None = None
) -> Executable:
    """The next ids after `after`, up to `last`."""
    behind = select(Job.id).where(Job.id > after, Job.id <= last, *conditions(filters, now))
    return _first(behind, filters, limit)


def among(filters: Filters, ids: Sequence[int], *, now: datetime | None = None) -> Select[Any]:
    """Select the jobs of `ids` that still match the filters."""
    return select(Job).where(one_of(ids), *conditions(filters, now))


def conditions(filters: Filters, now: datetime | None = None) -> list[ColumnElement[bool]]:
    """The filters as SQL conditions."""
    found: list[ColumnElement[bool]] = []
    if filters.ids:
        found.append(one_of(filters.ids))
    if filters.states:
        found.append(state_in(*filters.states))
    if filters.queue is not None:
        found.append(Job.queue == filters.queue)
    if filters.worker is not None:
        found.append(Job.worker == filters.worker)
    if filters.args is not None:
        found.append(Job.args_contain(filters.args))
    if filters.tags:
        found.append(Job.tags.contains(list(filters.tags)))
    found += filters.where
    time = database_now(now)
    if filters.older_than is not None:
        found.append(Job.inserted_at < time - interval(filters.older_than))
    if filters.newer_than is not None:
        found.append(Job.inserted_at >= time - interval(filters.newer_than))
    return found


def _first(jobs: Select[Any], filters: Filters, limit: int, *, newest: bool = False) -> Select[Any]:
    """The oldest or the newest jobs of a SELECT.

    If a state or a queue has few jobs, they are found by the index of states, because a walk along
    the ids could read the whole table. If there are many jobs, the walk along the ids is short.
    """

    def first(jobs: Select[Any]) -> Select[Any]:
        id = jobs.selected_columns["id"]
        return jobs.order_by(id.desc() if newest else id).limit(limit)

    if filters.ids or not (filters.states or filters.queue):
        return first(jobs)
    few = _some(filters).cte("few")
    is_all = select(func.count()).select_from(few).scalar_subquery() <= MOST_FEW
    listed = Job.id == any_(func.array(select(few.c.id).scalar_subquery(), type_=_IDS))
    ways = union_all(
        select(first(jobs.where(is_all, listed)).subquery()),
        select(first(jobs.where(~is_all)).subquery()),
    )
    return first(select(ways.subquery()))


def _some(filters: Filters) -> Select[Any]:
    """Some ids of jobs in the states and the queue, at most `MOST_FEW` + 1, by the index."""

    def along(state: ColumnElement[Any]) -> Select[Any]:
        found = select(Job.id).where(Job.state == state)
        if filters.queue is not None:
            found = found.where(Job.queue == filters.queue)
        order = (Job.queue, Job.priority, Job.scheduled_at, Job.id)
        return found.order_by(*order).limit(MOST_FEW + 1)

    if filters.states:
        lanes = [select(along(constant(state)).subquery()) for state in filters.states]
        return select(union_all(*lanes).subquery()).limit(MOST_FEW + 1)
    # All values of the enum, including states that this version does not know.
    states = func.unnest(func.enum_range(cast(null(), job_state)))
    state = states.table_valued(column("state", job_state)).render_derived()
    lane = along(state.c.state).lateral("lane")
    return select(lane.c.id).select_from(state.join(lane, true())).limit(MOST_FEW + 1)
