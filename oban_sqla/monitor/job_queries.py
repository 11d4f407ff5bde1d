"""Browse: find jobs by what they are, and read them whatever state others gave them."""

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
from ..statements.ids import one_of
from ..statements.states import constant, state_in

_IDS = ARRAY(BigInteger)
MOST_FEW = 20_000
"""As many jobs of a state or a queue are sorted by their ids."""


@dataclass(frozen=True, slots=True)
class Filters:
    """Which jobs are meant: those that all of this holds for."""

    ids: tuple[int, ...] = ()
    states: tuple[JobState, ...] = ()
    queue: str | None = None
    worker: str | None = None
    older_than: float | None = None
    """Seconds since they were enqueued, at least."""
    newer_than: float | None = None
    """Seconds since they were enqueued, at most."""
    args: Mapping[str, Any] | None = None
    """Arguments that they have, perhaps among others."""
    tags: tuple[str, ...] = ()
    """Tags that they have, perhaps among others."""
    where: tuple[ColumnElement[bool], ...] = ()
    """Further conditions."""


def browse(filters: Filters, *, limit: int, now: datetime | None = None) -> Executable:
    """The newest jobs: what tells them apart, `state` as text, and the text of the last `error`.

    And their `age` and the time until they are due (`due_in`), in seconds.
    """
    time = database_now(now)
    shown = select(
        Job.id,
        cast(Job.state, Text).label("state"),
        *(Job.queue, Job.worker, Job.args, Job.tags, Job.attempt, Job.max_attempts),
        *(Job.inserted_at, Job.scheduled_at),
        seconds(time - Job.inserted_at).label("age"),
        seconds(Job.scheduled_at - time).label("due_in"),
        Job.errors[-1]["error"].astext.label("error"),
    )
    return _first(shown.where(*conditions(filters, now)), filters, limit, newest=True)


def describe(ids: Sequence[int]) -> Executable:
    """All columns of jobs, their `state` as text."""
    columns: list[Any] = [
        cast(Job.state, Text).label("state") if name == "state" else getattr(Job, name)
        for name in COLUMNS
    ]
    return select(*columns).where(one_of(ids))


def worker_exists(name: str) -> Executable:
    """One row if some job has this worker."""
    return select(literal(1)).where(Job.worker == name).limit(1)


def workers() -> Executable:
    """The names of all workers that jobs have, in order."""
    return select(Job.worker).distinct().order_by(Job.worker)


def tally(filters: Filters, *, limit: int | None, now: datetime | None = None) -> Executable:
    """How many jobs there are by `state` (`count`), of the `limit` oldest, and their `last` id."""
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
    """The next ids behind `after`, up to the `last`."""
    behind = select(Job.id).where(Job.id > after, Job.id <= last, *conditions(filters, now))
    return _first(behind, filters, limit)


def among(filters: Filters, ids: Sequence[int], *, now: datetime | None = None) -> Select[Any]:
    """Those of `ids` that the filters still hold for, as jobs."""
    return select(Job).where(one_of(ids), *conditions(filters, now))


def conditions(filters: Filters, now: datetime | None = None) -> list[ColumnElement[bool]]:
    """What has to hold for a job."""
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
    """The oldest or the newest of some jobs.

    Jobs of a state or a queue that has few are found by the index of states. A walk along the ids
    would read the whole table when there is none. It is short when there are many.
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
    """Up to so many ids of jobs in the states and the queue, along the index of each state."""

    def along(state: ColumnElement[Any]) -> Select[Any]:
        found = select(Job.id).where(Job.state == state)
        if filters.queue is not None:
            found = found.where(Job.queue == filters.queue)
        order = (Job.queue, Job.priority, Job.scheduled_at, Job.id)
        return found.order_by(*order).limit(MOST_FEW + 1)

    if filters.states:
        lanes = [select(along(constant(state)).subquery()) for state in filters.states]
        return select(union_all(*lanes).subquery()).limit(MOST_FEW + 1)
    # Also in a state that this version does not know.
    states = func.unnest(func.enum_range(cast(null(), job_state)))
    state = states.table_valued(column("state", job_state)).render_derived()
    lane = along(state.c.state).lateral("lane")
    return select(lane.c.id).select_from(state.join(lane, true())).limit(MOST_FEW + 1)
