"""Statements that take, count and reset the permits of a rate, for code outside of jobs."""

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    Double,
    Executable,
    Integer,
    Text,
    and_,
    bindparam,
    case,
    cast,
    delete,
    func,
    literal,
    select,
    update,
)
from sqlalchemy.orm import aliased

from ..clock import database_now, seconds, since_statement
from .rows import RateRow, StartRow
from .starts import count_starts, save_tokens
from .terms import enough_in, tokens, used


@lru_cache(maxsize=1)
def take_permits() -> Executable:
    """Take `weight` permits of `rate_id`, if there are enough. Must run after `lock_rates`.

    Returns one row: whether they were `taken`, the number of `permits` before, and `next_in`, the
    seconds until there are enough.
    """
    time = database_now()
    rate_id = cast(bindparam("rate_id", type_=Text), Text)
    allowed, burst, weight = (
        cast(bindparam(name, type_=Integer), Integer) for name in ("allowed", "burst", "weight")
    )
    period = cast(bindparam("period", type_=Double), Double)
    row = aliased(RateRow)
    saved = tokens(row, allowed, burst, period, time)
    fewer = case((burst > 0, cast(func.floor(saved), Integer)))
    log = allowed + burst - used(rate_id, period, time)
    held_in = func.coalesce(seconds(row.held_until - time), 0.0)
    one = select(literal(1).label("one")).subquery()
    now = (
        select(
            case((held_in > 0, 0), else_=func.greatest(func.least(log, fewer), 0)).label("permits"),
            held_in.label("held_in"),
            case((burst > 0, (weight - saved) * period / func.nullif(allowed, 0))).label(
                "token_in"
            ),
        )
        .select_from(one.outerjoin(row, row.rate == rate_id))
        .cte("now")
    )
    enough = now.c.permits >= weight
    started = (
        select(
            rate_id.label("rate_id"),
            allowed.label("allowed"),
            burst.label("burst"),
            period.label("period"),
            weight.label("weight"),
        )
        .select_from(now)
        .where(and_(enough, weight > 0))
        .cte("started")
    )
    in_log = enough_in(rate_id, allowed + burst, period, weight, time)
    next_in = func.greatest(now.c.held_in, in_log, now.c.token_in) - since_statement()
    return select(
        enough.label("taken"), now.c.permits, case((~enough, next_in)).label("next_in")
    ).add_cte(count_starts(started, time), save_tokens(started, time))


@lru_cache(maxsize=1)
def reset_rate() -> Executable:
    """Forget the starts of `rate_id`, and release it if it is held."""
    rate_id = bindparam("rate_id", type_=Text)
    forgotten: Any = delete(StartRow).where(StartRow.rate == rate_id).cte("forgotten")
    return (
        update(RateRow)
        .where(RateRow.rate == rate_id)
        .values(tokens=None, counted_at=None, held_until=None)
        .add_cte(forgotten)
    )
