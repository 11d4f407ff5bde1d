"""Walk over the keys of a queue: one step for each key, however many of its jobs wait."""

from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    Double,
    FromClause,
    Integer,
    SmallInteger,
    Text,
    and_,
    bindparam,
    case,
    cast,
    false,
    func,
    literal,
    literal_column,
    not_,
    null,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import aliased

from ..clock import seconds
from ..limiting import MOST
from ..models import Job, JobState
from ..statements.claim import of_queue
from ..statements.states import constant
from .queue_keys import OF_KEY, QueueKeys, key_state
from .rate_state import OF_RATE, rate_state
from .rows import RateRow
from .terms import Terms, executing_by_limit, is_partitioned, limits_of, partition_of


def walk(time: ColumnElement[Any], *, rates: bool, queue_keys: QueueKeys | None = None) -> CTE:
    """The keys of the queue `queue_name` by priority, around each priority from `cursor` on.

    The walk ends when `limit` jobs are found that may start, each of a key without executing jobs.
    A row has the terms of the key's first job, the number of `executing` jobs of its limit, the
    `room` for jobs of the key, and `next_in`, the seconds until there is room, if that is known.
    Rows without terms only begin a priority. With `rates`, there are the columns `OF_RATE`, too;
    otherwise a key with a rate has no room. For a queue with keys, there are the columns `OF_KEY`,
    and `executing` counts the jobs of its key.
    """
    columns = {**_STATE, **(OF_RATE if rates else {}), **(OF_KEY if queue_keys else {})}
    start = select(
        cast(literal(-1), SmallInteger).label("priority"),
        cast(literal("", Text), Text).label("key"),
        true().label("wrapped"),
        cast(null(), JSONB).label("limits"),
        literal(0).label("step"),
        literal(0).label("found"),
        *(cast(null(), kind).label(name) for name, kind in columns.items()),
    )
    before = start.cte("walk", recursive=True)
    following = _following(before)
    limits = _limits_state(following, time)
    state = _state(limits, rates=rates)
    sources = before.join(following, true()).join(limits, true())
    if rates:
        of_rate = rate_state(following, time)
        sources = sources.outerjoin(of_rate, true())
        state = _with_rate(state, of_rate.c)
    if queue_keys is not None:
        of_key = key_state(following, queue_keys, time)
        sources = sources.join(of_key, true())
        state = _with_key(state, of_key.c)
    is_new = and_(
        following.c.limits.is_not(None), state["room"] > 0, state["executing"] == literal(0)
    )
    rest = (
        select(
            following.c.priority,
            following.c.key,
            following.c.wrapped,
            following.c.limits,
            before.c.step + 1,
            before.c.found + case((is_new, 1), else_=0),
            *(cast(state[name], kind) for name, kind in columns.items()),
        )
        .select_from(sources)
        .where(before.c.found < bindparam("limit", type_=Integer))
    )
    return before.union_all(rest)


_STATE: dict[str, Any] = {
    "limit_id": Text,
    "executing": Integer,
    "limit_room": Integer,
    "rate_id": Text,
    "room": Integer,
    "next_in": Double,
}


def _following(before: CTE) -> FromClause:
    """The first job of the next key: in this priority, then around to its first key, then below."""
    cursor = bindparam("cursor", type_=Text)
    here = before.c.priority
    branches = [
        _first(before, not_(before.c.wrapped), here, false(), lambda key: [key > before.c.key]),
        _first(before, not_(before.c.wrapped), here, true(), lambda key: [key <= cursor]),
        _first(
            before,
            before.c.wrapped,
            here,
            true(),
            lambda key: [key > before.c.key, key <= cursor],
        ),
    ]
    job = aliased(Job)
    below = (
        select(job.priority, cursor.label("key"), false().label("wrapped"))
        .where(*_waiting(job), job.priority > here)
        .order_by(job.priority)
        .limit(1)
        .correlate(before)
        .subquery()
    )
    no_limits = cast(null(), JSONB).label("limits")
    branches.append(select(below.c.priority, below.c.key, below.c.wrapped, no_limits))
    # The server runs the branches in this order, and stops at the first row.
    return union_all(*branches).limit(1).lateral("following")


def _first(
    before: CTE,
    condition: ColumnElement[bool],
    priority: ColumnElement[Any],
    wrapped: ColumnElement[bool],
    keys: Any,
) -> Any:
    job = aliased(Job)
    key = partition_of(job)
    first = (
        select(job.priority, key.label("key"), wrapped.label("wrapped"), _limits(job))
        .where(condition, *_waiting(job), job.priority == priority, *keys(key))
        .order_by(key, job.scheduled_at, job.id)
        .limit(1)
        .correlate(before)
        .subquery()
    )
    return select(first.c.priority, first.c.key, first.c.wrapped, first.c.limits)


def _limits(job: Any) -> ColumnElement[Any]:
    # Never NULL, since NULL marks a row that only begins a priority.
    return func.coalesce(limits_of(job), cast(literal("{}", Text), JSONB)).label("limits")


def _waiting(job: Any) -> list[ColumnElement[bool]]:
    queue = job.queue == of_queue().right
    return [job.state == constant(JobState.AVAILABLE), is_partitioned(job), queue]


def _limits_state(following: FromClause, time: ColumnElement[Any]) -> FromClause:
    """The terms of the key's limit, and its counts.

    OFFSET makes the server compute each of them only once.
    """
    terms = Terms.of(following.c.limits)
    names = ("limit_id", "most", "shares", "rate_id")
    one = select(literal(1).label("one")).subquery()
    of = (
        select(*(getattr(terms, name).label(name) for name in names))
        .select_from(one)
        .offset(literal_column("0"))
        .correlate(following)
        .lateral("terms")
    )
    row = aliased(RateRow)
    name = func.coalesce(of.c.rate_id, of.c.limit_id, following.c.key)
    executing = cast(executing_by_limit()[of.c.limit_id].astext, Integer)
    return (
        select(
            *of.c,
            func.coalesce(executing, 0).label("executing"),
            seconds(row.held_until - time).label("held_in"),
        )
        .select_from(of.outerjoin(row, row.rate == name))
        .offset(literal_column("0"))
        .correlate(following)
        .lateral("of_limit")
    )


def _state(limits: FromClause, *, rates: bool) -> dict[str, ColumnElement[Any]]:
    of = limits.c
    limit_room = case((and_(of.limit_id.is_not(None), ~of.shares), of.most - of.executing))
    held = func.coalesce(of.held_in > 0, false())
    closed = held if rates else or_(held, of.rate_id.is_not(None))
    return {
        "limit_id": of.limit_id,
        "executing": of.executing,
        "limit_room": limit_room,
        "rate_id": of.rate_id,
        "room": case((closed, 0), else_=func.greatest(func.least(MOST, limit_room), 0)),
        "next_in": case((held, of.held_in)),
    }


def _with_rate(state: dict[str, ColumnElement[Any]], of: Any) -> dict[str, ColumnElement[Any]]:
    """The state of a job that has a rate, too."""
    return {
        **state,
        "permits": of.permits,
        "room": func.greatest(func.least(state["room"], of.room), 0),
        "next_in": func.greatest(state["next_in"], of.next_in),
    }


def _with_key(state: dict[str, ColumnElement[Any]], of: Any) -> dict[str, ColumnElement[Any]]:
    """The state of a job that its queue counts by a key, too."""
    room = func.least(state["room"], of.key_limit_room, of.key_permits)
    return {
        **state,
        **{name: of[name] for name in OF_KEY},
        "executing": func.greatest(state["executing"], of.key_executing),
        "room": func.greatest(room, 0),
        "next_in": func.greatest(state["next_in"], of.next_in),
    }
