"""Elect: take the lease of the leader when it is free, renew it, give it up."""

from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Executable,
    Float,
    Text,
    bindparam,
    case,
    cast,
    delete,
    func,
    literal,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import insert

from ..clock import database_now, interval, seconds
from ..models import LeaderLease
from .announce import LEADER, notify

FOREIGN_GRACE = 30.0
"""Seconds that a lease of another Oban is respected beyond its end.

Oban for Python takes its lease for three seconds, and renews it every fifteen.
"""

# Our holders are named so: the node, and what tells its processes apart.
_OURS = "/[0-9a-f]{12}$"


def free_at() -> ColumnElement[Any]:
    """When a lease that is not renewed can be taken by another node."""
    ours = LeaderLease.node.regexp_match(literal(_OURS, Text))
    grace = interval(literal(FOREIGN_GRACE, Float))
    return case((ours, LeaderLease.expires_at), else_=LeaderLease.expires_at + grace)


@lru_cache(maxsize=8)
def elect(*, now: datetime | None = None) -> Executable:
    """Have `holder` hold the lease of `instance` for `lease` seconds, unless another one does.

    Returns one row: whether it holds the lease (`leader`), and `expires_in`, the seconds until the
    lease was free before, whoever's it was; NULL when there was none that the statement could see.
    """
    time = database_now(now)
    until = time + interval(bindparam("lease", type_=Float))
    statement = insert(LeaderLease).values(
        name=bindparam("instance", type_=Text),
        node=bindparam("holder", type_=Text),
        elected_at=time,
        expires_at=until,
    )
    own = LeaderLease.node == statement.excluded.node
    held = (
        statement.on_conflict_do_update(
            index_elements=[LeaderLease.name],
            set_={
                "node": statement.excluded.node,
                "elected_at": case(
                    (own, LeaderLease.elected_at), else_=statement.excluded.elected_at
                ),
                "expires_at": statement.excluded.expires_at,
            },
            where=or_(own, free_at() <= time),
        )
        .returning(LeaderLease.name)
        .cte("held")
    )
    before = (
        select(seconds(free_at() - time))
        .where(LeaderLease.name == bindparam("instance", type_=Text))
        .scalar_subquery()
    )
    return select(select(held.c.name).exists().label("leader"), before.label("expires_in"))


@lru_cache(maxsize=64)
def resign(*, prefix: str | None = None) -> Executable:
    """Give up the lease of `instance` that `holder` holds, and tell it to those who wait for it.

    One row when there was such a lease.
    """
    freed = (
        delete(LeaderLease)
        .where(
            LeaderLease.name == bindparam("instance", type_=Text),
            LeaderLease.node == bindparam("holder", type_=Text),
        )
        .returning(LeaderLease.name, LeaderLease.node)
        .cte("freed")
    )
    payload = func.json_build_object(
        literal("action", Text),
        literal("resign", Text),
        literal("node", Text),
        freed.c.node,
        literal("name", Text),
        freed.c.name,
    )
    news = select(literal(LEADER, Text).label("channel"), cast(payload, Text).label("payload"))
    return notify(news, prefix)
