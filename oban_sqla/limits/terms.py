"""The terms of a waiting job's limit and rate, as its meta has them, and what they allow now."""

from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Double,
    Integer,
    Numeric,
    SQLColumnExpression,
    Text,
    case,
    cast,
    func,
    literal,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import aliased

from ..clock import interval, seconds
from ..limiting import LONGEST_PERIOD, MOST
from ..models import Job, JobState
from ..statements.states import constant
from .rows import StartRow

# Written out: behind a bound parameter, an index on the expression would not be seen.
PARTITION: ColumnElement[str] = literal_column("'partition_key'", Text)
LIMIT_ID: ColumnElement[Any] = literal_column("'{oban_sqla_limits,limit,id}'")
LIMITS: ColumnElement[str] = literal_column("'oban_sqla_limits'", Text)


def partition_of(job: Any) -> ColumnElement[str]:
    """What a job is counted by; NULL for a job without limits."""
    key: ColumnElement[str] = job.meta.op("->>", return_type=Text())(PARTITION)
    return key


def is_partitioned(job: Any) -> ColumnElement[bool]:
    """Whether a job is in the indexes of limited jobs."""
    has: ColumnElement[bool] = job.meta.op("?", is_comparison=True)(PARTITION)
    return has


def limits_of(job: Any) -> ColumnElement[Any]:
    """The terms in a job's meta."""
    limits: ColumnElement[Any] = job.meta.op("->", return_type=JSONB())(LIMITS)
    return limits


def executing_by_limit() -> ColumnElement[Any]:
    """How many jobs of each limit execute, as an object of JSON: counted once for a statement."""
    job = aliased(Job)
    limit_id = job.meta.op("#>>", return_type=Text())(LIMIT_ID)
    counted = (
        select(limit_id.label("limit_id"), func.count().label("count"))
        .where(job.state == constant(JobState.EXECUTING), is_partitioned(job))
        .where(limit_id.is_not(None))
        .group_by("limit_id")
        .subquery("executing")
    )
    return (
        select(func.jsonb_object_agg(counted.c.limit_id, counted.c.count, type_=JSONB))
        .correlate(None)
        .scalar_subquery()
    )


class Terms(NamedTuple):
    """The terms of a limit and of a rate as columns. Others may have written any JSON there."""

    limit_id: ColumnElement[str]
    most: ColumnElement[int]
    """How many may execute."""
    shares: ColumnElement[bool]
    """Whether more may execute while slots are free."""
    rate_id: ColumnElement[str]
    allowed: ColumnElement[int]
    burst: ColumnElement[int]
    period: ColumnElement[float]
    weight: ColumnElement[int]

    @classmethod
    def of(cls, limits: ColumnElement[Any]) -> "Terms":
        limit, rate = limits["limit"], limits["rate"]
        return cls(
            limit_id=limit["id"].astext,
            most=whole(limit["allowed"], 1),
            shares=func.coalesce(limit["burst"] == cast(literal_column("'true'"), JSONB), False),
            rate_id=rate["id"].astext,
            allowed=whole(rate["allowed"], 1),
            burst=whole(rate["burst"], 0),
            period=period_of(rate["period"]),
            weight=func.greatest(whole(rate["weight"], 1), 1),
        )


def whole(value: SQLColumnExpression[Any], default: int) -> ColumnElement[int]:
    """A number of jobs in JSON; the default for what is no such number."""
    number = cast(value, Numeric)
    sane = case((number.between(0, MOST), cast(number, Integer)), else_=default)
    return case((func.jsonb_typeof(value) == literal("number", Text), sane), else_=default)


def period_of(value: SQLColumnExpression[Any]) -> ColumnElement[float]:
    """A period in JSON, in seconds; one second for what is none."""
    number = cast(value, Numeric)
    sane = case((number.between(0.001, LONGEST_PERIOD), cast(number, Double)), else_=1.0)
    return case((func.jsonb_typeof(value) == literal("number", Text), sane), else_=1.0)


def used(rate_id: Any, period: Any, time: ColumnElement[Any]) -> ColumnElement[int]:
    """How many starts of a rate count now."""
    start = aliased(StartRow)
    return (
        select(cast(func.coalesce(func.sum(start.starts), 0), Integer))
        .where(start.rate == rate_id, start.at > time - interval(period))
        .correlate_except(start)
        .scalar_subquery()
    )


def tokens(row: Any, allowed: Any, burst: Any, period: Any, time: Any) -> ColumnElement[float]:
    """How many starts a rate with a burst has saved, from its row, which may be missing.

    They come evenly, `allowed` in a period, and end at `allowed + burst`.
    """
    full = cast(allowed + burst, Double)
    since = seconds(time - row.counted_at)
    return func.least(full, func.coalesce(row.tokens + since * allowed / period, full))


def enough_in(
    rate_id: Any, most: Any, period: Any, weight: Any, time: ColumnElement[Any]
) -> ColumnElement[float]:
    """Seconds until so many starts have left the period that `weight` more have room in it."""
    start = aliased(StartRow)
    so_far = func.sum(start.starts).over(order_by=start.at)
    counted = (
        select(start.at, so_far.label("so_far"))
        .where(start.rate == rate_id, start.at > time - interval(period))
        .correlate_except(start)
        .subquery()
    )
    leave = used(rate_id, period, time) + weight - most
    return (
        select(seconds(func.min(counted.c.at) + interval(period) - time))
        .where(counted.c.so_far >= leave)
        .correlate_except(counted)
        .scalar_subquery()
    )
