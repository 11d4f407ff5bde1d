"""The terms of a waiting job's limit and rate, from its meta, and the jobs that they allow now."""

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

# A literal, because with a bound parameter the server can't use an index on the expression.
PARTITION: ColumnElement[str] = literal_column("'partition_key'", Text)
LIMIT_ID: ColumnElement[Any] = literal_column("'{oban_sqla_limits,limit,id}'")
RATE_ID: ColumnElement[Any] = literal_column("'{oban_sqla_limits,rate,id}'")
LIMITS: ColumnElement[str] = literal_column("'oban_sqla_limits'", Text)


def partition_of(job: Any) -> ColumnElement[str]:
    """The key by which a job is counted; NULL for a job without limits."""
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
    """The numbers of executing jobs by limit, as a JSON object, counted once per statement."""
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
    """The terms of a limit and a rate as columns. Other programs may have written any JSON."""

    limit_id: ColumnElement[str]
    most: ColumnElement[int]
    """The most executing jobs."""
    shares: ColumnElement[bool]
    """Whether more jobs may execute while slots are free."""
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
            weight=func.greatest(whole(rate["weight"], 1), 1, type_=Integer),
        )


def whole(value: SQLColumnExpression[Any], default: int) -> ColumnElement[int]:
    """A number of jobs in JSON, at most `MOST`; `default` if the value is not such a number."""
    number = cast(value, Numeric)
    sane = case((number >= 0, cast(func.least(number, MOST), Integer)), else_=default)
    return case((func.jsonb_typeof(value) == literal("number", Text), sane), else_=default)


def period_of(value: SQLColumnExpression[Any]) -> ColumnElement[float]:
    """A period in JSON, in seconds; one second if the value is not a period."""
    number = cast(value, Numeric)
    # Compared with a float, PostgreSQL would convert the number to one, and fail for 1e400.
    least, most = (cast(literal(bound), Numeric) for bound in (0.001, LONGEST_PERIOD))
    sane = case((number.between(least, most), cast(number, Double)), else_=1.0)
    return case((func.jsonb_typeof(value) == literal("number", Text), sane), else_=1.0)


def used(rate_id: Any, period: Any, time: ColumnElement[Any]) -> ColumnElement[int]:
    """The number of starts of a rate that count now."""
    start = aliased(StartRow)
    return (
        select(cast(func.coalesce(func.sum(start.starts), 0), Integer))
        .where(start.rate == rate_id, start.at > time - interval(period))
        .correlate_except(start)
        .scalar_subquery()
    )


def tokens(row: Any, allowed: Any, burst: Any, period: Any, time: Any) -> ColumnElement[float]:
    """The starts that a rate with a burst has saved, from its row, which may be missing.

    They accumulate evenly, `allowed` in a period, up to `allowed + burst`.
    """
    full = cast(allowed + burst, Double)
    since = seconds(time - row.counted_at)
    return func.least(full, func.coalesce(row.tokens + since * allowed / period, full))


def enough_in(
    rate_id: Any, most: Any, period: Any, weight: Any, time: ColumnElement[Any]
) -> ColumnElement[float]:
    """Seconds until enough starts have left the period for `weight` more starts."""
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
