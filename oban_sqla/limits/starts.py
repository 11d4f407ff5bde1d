"""Count the starts of jobs of a rate, by the database's clock.

Starts are counted in slices of a thousandth of the period, each at the end of its slice. So a start
counts for at least the whole period, and a rate has at most a thousand rows.
"""

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    DateTime,
    Executable,
    Integer,
    any_,
    bindparam,
    cast,
    delete,
    func,
    literal,
    literal_column,
    select,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.orm import aliased

from ..clock import interval, seconds
from ..models import Job
from .queue_keys import KEY_ALLOWED, KEY_PERIOD, RATE_ID, stored_id
from .queue_room import QUEUE_RATE, RATE_ALLOWED, RATE_PERIOD
from .rows import RateRow, StartRow
from .terms import Terms, limits_of, tokens

SLICES = 1000
"""The number of slices of a period."""
CLEARED = 100
"""The number of expired rows that a claim deletes, in addition to as many as it may add."""

_EPOCH: ColumnElement[Any] = literal_column("TIMESTAMP '1970-01-01'", DateTime())


def slice_end(time: ColumnElement[Any], period: ColumnElement[Any]) -> ColumnElement[Any]:
    """The end of the slice that contains an instant."""
    width = period / float(SLICES)
    return _EPOCH + interval(func.ceil(seconds(time - _EPOCH) / width) * width)


def count_starts(started: CTE, time: ColumnElement[Any]) -> CTE:
    """Count jobs that start now; `started` has `rate_id`, `period` and `weight`."""
    # One row for each rate, even if its jobs have different periods.
    period = func.max(started.c.period)
    at = slice_end(time, period)
    statement = insert(StartRow).from_select(
        ["rate", "at", "starts", "expires_at"],
        select(
            started.c.rate_id,
            at,
            cast(func.sum(started.c.weight), Integer),
            at + interval(period),
        ).group_by(started.c.rate_id),
    )
    starts = StartRow.starts + statement.excluded.starts
    return statement.on_conflict_do_update(
        index_elements=[StartRow.rate, StartRow.at], set_={"starts": starts}
    ).cte("counted_starts")


def save_tokens(started: CTE, time: ColumnElement[Any]) -> CTE:
    """Take tokens for jobs that start now, for rates with a burst."""
    row = aliased(RateRow)
    allowed, burst = func.max(started.c.allowed), func.max(started.c.burst)
    before = tokens(
        _Grouped(func.max(row.tokens), func.max(row.counted_at)),
        allowed,
        burst,
        func.max(started.c.period),
        time,
    )
    statement = insert(RateRow).from_select(
        ["rate", "tokens", "counted_at"],
        select(started.c.rate_id, before - func.sum(started.c.weight), time)
        .select_from(started.outerjoin(row, row.rate == started.c.rate_id))
        .where(started.c.burst > 0)
        .group_by(started.c.rate_id),
    )
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=[RateRow.rate],
        set_={"tokens": new.tokens, "counted_at": new.counted_at},
    ).cte("saved_tokens")


class _Grouped:
    def __init__(self, tokens: ColumnElement[Any], counted_at: ColumnElement[Any]) -> None:
        self.tokens, self.counted_at = tokens, counted_at


def forget_starts(time: ColumnElement[Any]) -> CTE:
    """Delete rows of any rate that no longer count."""
    old = (
        select(StartRow.rate, StartRow.at)
        .where(StartRow.expires_at < time)
        .order_by(StartRow.expires_at)
        .limit(bindparam("limit", type_=Integer) + literal(CLEARED))
        .with_for_update(skip_locked=True)
    )
    return delete(StartRow).where(tuple_(StartRow.rate, StartRow.at).in_(old)).cte("forgotten")


@lru_cache(maxsize=1)
def take_back_starts() -> Executable:
    """Subtract the starts of the claimed jobs `ids`, which did not start and are available again.

    Each start was counted at the end of the slice in which its job was claimed.
    """
    terms = Terms.of(limits_of(Job))
    claimed = Job.id == any_(bindparam("ids", type_=ARRAY(BigInteger)))
    of_job = select(terms.rate_id, Job.attempted_at, terms.period, terms.weight)
    of_queue = select(QUEUE_RATE, Job.attempted_at, RATE_PERIOD, literal(1))
    of_key = select(stored_id(Job, RATE_ID), Job.attempted_at, KEY_PERIOD, literal(1))
    started = union_all(
        of_job.where(claimed, terms.rate_id.is_not(None)),
        of_queue.where(claimed, RATE_ALLOWED.is_not(None)),
        of_key.where(claimed, KEY_ALLOWED.is_not(None), stored_id(Job, RATE_ID).is_not(None)),
    ).subquery("started")
    rate, attempted_at, period, weight = started.c
    at = slice_end(attempted_at, period).label("at")
    weights = cast(func.sum(weight), Integer).label("weight")
    back = select(rate.label("rate"), at, weights).group_by(rate, at).cte("back")
    starts = (
        update(StartRow)
        .where(StartRow.rate == back.c.rate, StartRow.at == back.c.at)
        .values(starts=StartRow.starts - back.c.weight)
        .returning(StartRow.rate, back.c.weight)
        .cte("starts")
    )
    sums = select(starts.c.rate, func.sum(starts.c.weight).label("weight")).group_by(starts.c.rate)
    sum_ = sums.cte("sum")
    return (
        update(RateRow)
        .where(RateRow.rate == sum_.c.rate)
        .values(tokens=RateRow.tokens + sum_.c.weight)
    )
