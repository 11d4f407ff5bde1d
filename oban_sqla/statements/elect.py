"""Elect a leader: take the lease when it is free, renew it, give it up."""

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
"""Seconds after its end during which a lease of another Oban still counts as held.

Oban for Python takes its lease for 3 seconds, but renews it every 15.
"""

IMPOSSIBLE = 3.0
"""A lease that lasts so many times longer than ours was taken before the clock was set back.

Its holder may have died, and the lease would then keep all nodes from leading until the clock has
passed its end.
"""

# The holder of a lease of ours is named for its node and a random suffix of its process.
_OURS = "/[0-9a-f]{12}$"


def free_at() -> ColumnElement[Any]:
    """When another node can take a lease that is not renewed."""
    ours = LeaderLease.node.regexp_match(literal(_OURS, Text))
    grace = interval(literal(FOREIGN_GRACE, Float))
    return case((ours, LeaderLease.expires_at), else_=LeaderLease.expires_at + grace)


@lru_cache(maxsize=8)
def elect(*, now: datetime | None = None) -> Executable:
    """Take or renew the lease of `instance` for `holder` and `lease` seconds, if no other holds it.

    Returns one row: whether `holder` has the lease (`leader`), and `expires_in`, the seconds until
    the lease as it was before this statement would be free (NULL if there was none).
    """
    time = database_now(now)
    until = time + interval(bindparam("lease", type_=Float))
    statement = insert(LeaderLease).values(
        name=bindparam("instance", type_=Text),
        node=bindparam("holder", type_=Text),
        elected_at=time,
        expires_at=until,
    )
    too_long = interval(IMPOSSIBLE * bindparam("lease", type_=Float))
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
            where=or_(own, free_at() <= time, LeaderLease.expires_at > time + too_long),
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
    """Delete the lease of `instance` if `holder` has it, and notify the other nodes.

    Returns one row if there was such a lease.
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
