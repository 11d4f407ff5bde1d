"""The number of jobs that a queue's own limits let start: its global limit and its rate."""

from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    Double,
    Integer,
    Text,
    bindparam,
    case,
    cast,
    func,
    literal,
    null,
    select,
    true,
)
from sqlalchemy.orm import aliased

from ..limiting import MOST
from ..models import Job, JobState
from ..statements.claim import of_queue
from ..statements.states import state_in
from .rows import RateRow
from .terms import enough_in, tokens, used

RATE_ALLOWED: ColumnElement[Any] = cast(bindparam("rate_allowed", type_=Integer), Integer)
RATE_BURST: ColumnElement[Any] = cast(bindparam("rate_burst", type_=Integer), Integer)
RATE_PERIOD: ColumnElement[Any] = cast(bindparam("rate_period", type_=Double), Double)
QUEUE_RATE: ColumnElement[str] = func.concat(
    literal("queue ", Text), bindparam("queue_name", type_=Text)
)
"""The name under which the starts of a queue are counted."""


def queue_room(time: ColumnElement[Any], *, rates: bool) -> CTE:
    """One row: the `room`, and `next_in`, the seconds until the rate lets a job start again.

    Also the number of starts that count for the rate (NULL without a rate). Without `rates`, only
    the global limit counts.
    """
    limit = cast(bindparam("global_limit", type_=Integer), Integer)
    # Count no further than the limit, since more jobs do not change the result.
    counted = select(Job.id).where(state_in(JobState.EXECUTING), of_queue()).limit(limit).subquery()
    count = select(func.count()).select_from(counted).scalar_subquery()
    free = case((limit.is_(None), MOST), else_=limit - count)
    limits = select(cast(free, Integer).label("free")).subquery("own")
    if not rates:
        return select(
            func.greatest(limits.c.free, 0).label("room"),
            cast(null(), Double).label("next_in"),
            cast(null(), Integer).label("started"),
        ).cte("queue_room")
    row = aliased(RateRow)
    most = RATE_ALLOWED + RATE_BURST
    saved = tokens(row, RATE_ALLOWED, RATE_BURST, RATE_PERIOD, time)
    log = most - used(QUEUE_RATE, RATE_PERIOD, time)
    rate = (
        select(
            case(
                (RATE_ALLOWED.is_(None), MOST),
                (RATE_BURST > 0, func.least(log, cast(func.floor(saved), Integer))),
                else_=log,
            ).label("permits"),
            case((RATE_BURST > 0, (1 - saved) * RATE_PERIOD / RATE_ALLOWED)).label("token_in"),
        )
        .select_from(
            select(literal(1).label("one")).subquery().outerjoin(row, row.rate == QUEUE_RATE)
        )
        .subquery("rate")
    )
    in_log = enough_in(QUEUE_RATE, most, RATE_PERIOD, literal(1), time)
    next_in = case((rate.c.permits < 1, func.greatest(in_log, rate.c.token_in)))
    return (
        select(
            func.greatest(func.least(limits.c.free, rate.c.permits), 0).label("room"),
            next_in.label("next_in"),
            (most - rate.c.permits).label("started"),
        )
        .select_from(limits.join(rate, true()))
        .cte("queue_room")
    )
