"""The permits of the rate of a key, for the walk over the keys of a queue."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Integer,
    case,
    cast,
    func,
    literal,
    literal_column,
    select,
)
from sqlalchemy.orm import aliased

from .rows import RateRow
from .terms import Terms, enough_in, tokens, used

OF_RATE: Mapping[str, Any] = {"permits": Integer}
"""The columns that a walk over rates has in addition."""


def rate_state(following: FromClause, time: ColumnElement[Any]) -> FromClause:
    """The `permits` of the first job's rate, the `room` for jobs, and `next_in`.

    `next_in` is how many seconds later the rate has enough permits for the job. A job without a
    rate has no row. OFFSET makes the server compute each count only once.
    """
    terms = Terms.of(following.c.limits)
    names = ("rate_id", "allowed", "burst", "period", "weight")
    one = select(literal(1).label("one")).subquery()
    of = (
        select(*(getattr(terms, name).label(name) for name in names))
        .select_from(one)
        .where(terms.rate_id.is_not(None))
        .offset(literal_column("0"))
        .correlate(following)
        .lateral("rate_terms")
    )
    row = aliased(RateRow)
    counted = (
        select(
            *of.c,
            used(of.c.rate_id, of.c.period, time).label("starts"),
            tokens(row, of.c.allowed, of.c.burst, of.c.period, time).label("saved"),
        )
        .select_from(of.outerjoin(row, row.rate == of.c.rate_id))
        .offset(literal_column("0"))
        .correlate(following)
        .lateral("counted_of_rate")
    )
    now = counted.c
    by_starts = now.allowed + now.burst - now.starts
    permits = func.least(by_starts, case((now.burst > 0, cast(func.floor(now.saved), Integer))))
    too_few = permits < now.weight
    starts_in = enough_in(now.rate_id, now.allowed + now.burst, now.period, now.weight, time)
    tokens_in = case(
        (now.burst > 0, (now.weight - now.saved) * now.period / func.nullif(now.allowed, 0))
    )
    return (
        select(
            permits.label("permits"),
            case((too_few, 0), else_=permits).label("room"),
            case((too_few, func.greatest(starts_in, tokens_in))).label("next_in"),
        )
        .correlate(following)
        .lateral("of_rate")
    )
