"""Holds: a rate, or a key, of which nothing starts for a while, since a service said so."""

import json
from functools import lru_cache

from sqlalchemy import Double, Executable, Text, bindparam, cast, func, null, select
from sqlalchemy.dialects.postgresql import insert

from ..clock import database_now, interval
from ..models.unique import COUNTED_BY
from ..statements.claimed import Claimed
from .rows import RateRow


def held_name(job: Claimed) -> str | None:
    """What is held with a job: its rate, or its limit's key; `None` for a job without limits."""
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
    """Hold `rate_id` for so many `seconds` from now, unless it is held for longer."""
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
