"""Rescue: move orphans, whose producer died, from `executing` to `available` or a final state.

A producer of ours is dead if its heartbeat has expired or if it has no row: living producers
restore their rows. A producer of another Oban may live without a heartbeat, since a worker that
blocks the event loop stops its beats. Its jobs are orphans only after `rescue_after`.
"""

from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    Executable,
    Float,
    Integer,
    Numeric,
    Select,
    SelectBase,
    SQLColumnExpression,
    Text,
    and_,
    any_,
    bindparam,
    case,
    cast,
    delete,
    exists,
    extract,
    false,
    func,
    literal,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY

from ..clock import database_now, interval, seconds
from ..config.oban_settings import LONGEST_EXPIRY
from ..models import JobState
from ..models.on_discard import ENTRY
from .acknowledge import error_entry
from .announce import FREED, announce_rows, notify, queue_news
from .cancel_mark import marked
from .claim import CLAIMER
from .heartbeat import EXPIRY, FOREIGN_EXPIRY, LONG, UNBROKEN_SINCE
from .on_discard import enqueued
from .states import constant, state_in
from .tables import JOB, JOBS, PRODUCER, PRODUCERS

DIED = "the node that ran the job died, and no attempt was left, so it is discarded"


@lru_cache(maxsize=64)
def rescue(
    *, prefix: str | None = None, on_discard: bool = True, now: datetime | None = None
) -> Executable:
    """Rescue up to `batch` orphans, and announce the jobs that are available again.

    The `on_discard` jobs of discarded orphans are enqueued. Without the argument `on_discard`,
    orphans to be discarded that have such a job stay as they are.

    A producer expires after the seconds that its row says, but never before `expiry` seconds.
    `rescue_after` applies to jobs that producers of another Oban claimed. Nothing is rescued until
    some producer has been beating without a break for `settled` seconds. Before that, the table may
    just have been emptied, or the database may have been down, so that living producers can't be
    told from dead ones.

    Returns one row: `settled_in`, the seconds until rescues begin (0 or less if they have begun,
    NULL if no producer beats); the ids of `rescued`, `discarded` and `cancelled` jobs (NULL for
    none); how many orphans were `found`, including locked ones; how many producers are `expired`;
    and `next_in`, the seconds until the next producer expires (NULL for none).
    """
    time = database_now(now)
    producers = _producers(time)
    settled_in = _settled_in(time)
    spared = false() if on_discard else _has_on_discard()
    found = _orphans(time, producers, and_(settled_in <= 0, ~spared))
    moved = _moved(time, found)
    queues = (
        select(moved.c.queue)
        .where(moved.c.state == constant(JobState.AVAILABLE))
        .distinct()
        .subquery("queues")
    )
    sent = notify(union_all(queue_news(queues.c.queue), _freed(moved)), prefix).subquery()

    def ids(state: JobState) -> ColumnElement[Any]:
        query = select(func.array_agg(moved.c.id, type_=ARRAY(BigInteger)))
        return query.where(moved.c.state == constant(state)).scalar_subquery()

    def count(rows: Any) -> ColumnElement[int]:
        query: Select[Any] = select(func.count()).select_from(rows)
        return query.scalar_subquery()

    left = producers.c.left
    return select(
        settled_in.label("settled_in"),
        ids(JobState.AVAILABLE).label("rescued"),
        ids(JobState.DISCARDED).label("discarded"),
        ids(JobState.CANCELLED).label("cancelled"),
        count(found).label("found"),
        select(func.count()).where(left <= 0).scalar_subquery().label("expired"),
        select(func.min(left)).where(left > 0).scalar_subquery().label("next_in"),
        count(sent).label("sent"),
        announce_rows(enqueued(moved), prefix).label("on_discard"),
    )


@lru_cache(maxsize=8)
def until_settled(*, now: datetime | None = None) -> Executable:
    """Select the `settled_in` that `rescue` returns, in a statement that is quick to compile."""
    return select(_settled_in(database_now(now)).label("settled_in"))


@lru_cache(maxsize=8)
def delete_expired_rows(*, now: datetime | None = None) -> Executable:
    """Delete the expired rows of producers without executing jobs; `expiry` as in `rescue`."""
    executing = exists().where(
        state_in(JobState.EXECUTING), JOB.attempted_by[2] == cast(PRODUCER.uuid, Text)
    )
    return delete(PRODUCERS).where(_left(database_now(now)) <= 0, ~executing)


def _producers(time: ColumnElement[Any]) -> CTE:
    """The producers with a row: `claimer`, seconds until expiry (`left`), and whether `ours`."""
    claimer = cast(PRODUCER.uuid, Text).label("claimer")
    ours = _own_expiry().is_not(None).label("ours")
    return select(claimer, _left(time).label("left"), ours).cte("producers")


def _left(time: ColumnElement[Any]) -> ColumnElement[float]:
    # Never less than our own expiry: an outage up to that length must not kill any producer.
    own = func.coalesce(_own_expiry(), cast(literal(FOREIGN_EXPIRY, Float), Float))
    return func.greatest(own, _given("expiry")) - _silent_for(time)


def _own_expiry() -> ColumnElement[float]:
    """The expiry in the meta of a row; NULL if it is not a sane number."""
    said = cast(PRODUCER.meta[EXPIRY], Numeric)
    # Compared with a float, PostgreSQL would convert the number to one, and fail for 1e400.
    sane = case((said.between(0, cast(literal(LONGEST_EXPIRY), Numeric)), said))
    return cast(case((_is(PRODUCER.meta[EXPIRY], "number"), sane)), Float)


def _silent_for(time: ColumnElement[Any]) -> ColumnElement[float]:
    # A beat in the future was written before the clock was set back. If its producer lives, the
    # next beat is in the present.
    return func.abs(seconds(time - PRODUCER.updated_at))


def _settled_in(time: ColumnElement[Any]) -> ColumnElement[float]:
    epoch = cast(extract("epoch", time), Numeric)
    said = PRODUCER.meta[UNBROKEN_SINCE]
    since = case((_is(said, "number"), cast(said, Numeric)))
    expiry = _own_expiry()
    witnesses = and_(
        since.between(0, epoch),
        _silent_for(time) <= LONG * expiry,
        # A producer with a longer expiry is no witness: an outage that is short for it may be long
        # enough to kill our producers.
        expiry <= _given("expiry"),
    )
    earliest = select(func.min(since)).where(witnesses).scalar_subquery()
    return _given("settled") - cast(epoch - earliest, Float)


def _given(name: str) -> ColumnElement[float]:
    return cast(bindparam(name, type_=Float), Float)


def _orphans(time: ColumnElement[Any], producers: CTE, wanted: ColumnElement[bool]) -> CTE:
    after = interval(bindparam("rescue_after", type_=Float))
    old = func.coalesce(JOB.attempted_at, JOB.scheduled_at) <= time - after
    ours = JOB.attempted_by[3].is_not_distinct_from(literal(CLAIMER, Text))
    left = producers.c.left
    # The limit is in a second CTE: in one, PostgreSQL may walk the whole primary key to sort.
    orphans = (
        select(JOB.id, JOB.attempt, JOB.attempted_at)
        .outerjoin(producers, producers.c.claimer == JOB.attempted_by[2])
        .where(state_in(JobState.EXECUTING), wanted)
        .where(or_(left.is_(None), left <= 0), or_(ours, producers.c.ours, old))
        .cte("orphans")
        .prefix_with("MATERIALIZED", dialect="postgresql")
    )
    return (
        select(orphans)
        .order_by(orphans.c.id)
        .limit(bindparam("batch", type_=Integer))
        .cte("found")
        .prefix_with("MATERIALIZED", dialect="postgresql")
    )


def _has_on_discard() -> ColumnElement[bool]:
    """Whether another job is enqueued when this job is discarded for want of attempts."""
    none_left: ColumnElement[bool] = JOB.attempt >= JOB.max_attempts
    return and_(none_left, func.coalesce(JOB.meta.has_key(ENTRY), false()))


def _moved(time: ColumnElement[Any], found: CTE) -> CTE:
    # A job that was claimed again after the statement looked for orphans is no orphan any more.
    locked = (
        select(JOB.id)
        .join(found, found.c.id == JOB.id)
        .where(
            state_in(JobState.EXECUTING),
            JOB.attempt == found.c.attempt,
            JOB.attempted_at.is_not_distinct_from(found.c.attempted_at),
        )
        .with_for_update(skip_locked=True, of=JOBS)
    )
    cancelled = marked()
    left = JOB.attempt < JOB.max_attempts
    discarded = and_(~cancelled, ~left)
    return (
        update(JOBS)
        .where(JOB.id == any_(func.array(locked.scalar_subquery(), type_=ARRAY(BigInteger))))
        .values(
            state=case(
                (cancelled, constant(JobState.CANCELLED)),
                (left, constant(JobState.AVAILABLE)),
                else_=constant(JobState.DISCARDED),
            ),
            cancelled_at=case((cancelled, time), else_=JOB.cancelled_at),
            discarded_at=case((discarded, time), else_=JOB.discarded_at),
            meta=case((and_(~cancelled, left), _counted()), else_=JOB.meta),
            errors=case((discarded, _with_reason(time)), else_=JOB.errors),
        )
        .returning(JOB.id, JOB.queue, JOB.state, JOB.meta)
        .cte("moved")
    )


def _freed(moved: CTE) -> SelectBase:
    """A notification about free slots, if a limit counted one of the jobs."""
    of_queue = exists().where(
        PRODUCER.queue == moved.c.queue, PRODUCER.meta.has_key("global_limit")
    )
    keyed = moved.c.meta.op("?", is_comparison=True)(literal("partition_key", Text))
    counted = select(moved.c.id).where(or_(keyed, of_queue)).exists()
    return select(literal(FREED, Text), literal("{}", Text)).where(counted)


def _counted() -> ColumnElement[Any]:
    """The job's meta with `rescued` incremented, as in Oban. A meta that is no object stays."""
    before = JOB.meta["rescued"]
    count = case((_is(before, "number"), cast(before, Numeric)), else_=0)
    more = func.jsonb_build_object(literal("rescued", Text), count + 1)
    return case((_is(JOB.meta, "object"), JOB.meta.op("||")(more)), else_=JOB.meta)


def _with_reason(time: ColumnElement[Any]) -> ColumnElement[Any]:
    entry = func.jsonb_build_array(error_entry(JOB.attempt, time, literal(DIED, Text)))
    return case((_is(JOB.errors, "array"), JOB.errors.op("||")(entry)), else_=entry)


def _is(value: SQLColumnExpression[Any], kind: str) -> ColumnElement[bool]:
    # Other programs may have written any JSON, and one bad row would fail the whole batch.
    return func.jsonb_typeof(value) == literal(kind, Text)
