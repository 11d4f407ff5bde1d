"""Holds: no job of a rate or a key starts for a while, after a worker raised `RateLimited`."""

import json
from datetime import datetime
from functools import lru_cache

from sqlalchemy import (
    Double,
    Executable,
    Text,
    bindparam,
    cast,
    delete,
    func,
    literal,
    null,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import insert

from ..clock import database_now, interval
from ..models.unique import COUNTED_BY
from ..statements.claimed import Claimed
from .rows import RateRow, StartRow

IDLE = 86400.0
"""Seconds after which any idle rate has all its permits."""


def held_name(job: Claimed) -> str | None:
    """The name that a job holds: its rate, or its limit's key; `None` for a job without limits."""
    if not job.may_be_limited:
        return None
    meta = json.loads(job.meta_text)
    partition, limits = (meta.get(entry) for entry in COUNTED_BY)
    for kind in ("rate", "limit"):
        terms = limits.get(kind) if isinstance(limits, dict) else None
        if isinstance(terms, dict) and isinstance(name := terms.get("id"), str):
            return name
    return partition if isinstance(partition, str) else None


@lru_cache(maxsize=1)
def hold() -> Executable:
    """Hold `rate_id` for `seconds` from now, unless it is already held for longer."""
    seconds = cast(bindparam("seconds", type_=Double), Double)
    until = database_now() + interval(seconds)
    statement = insert(RateRow).from_select(
        ["rate", "tokens", "counted_at", "held_until"],
        select(
            cast(bindparam("rate_id", type_=Text), Text),
            cast(null(), Double),
            cast(null(), RateRow.counted_at.type),
            until,
        ),
    )
    return statement.on_conflict_do_update(
        index_elements=[RateRow.rate],
        set_={"held_until": func.greatest(statement.excluded.held_until, RateRow.held_until)},
    )


@lru_cache(maxsize=8)
def forget_rates(*, now: datetime | None = None) -> Executable:
    """Delete the rows of rates and keys that are not held, and that were idle for a day.

    A rate without a row has all its permits. Its starts have rows of their own.
    """
    time = database_now(now)
    counts = select(StartRow.rate).where(StartRow.rate == RateRow.rate).exists()
    long_ago = time - interval(literal(IDLE, Double))
    return delete(RateRow).where(
        func.coalesce(RateRow.held_until <= time, true()),
        func.coalesce(RateRow.counted_at <= long_ago, true()),
        ~counts,
    )
