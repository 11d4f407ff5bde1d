"""Presence: which nodes run which queues, and which node is the leader.

The meta of a producer is read as text, since another Oban may store any JSON there.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import Select, Text, cast, func, select

from ..clock import database_now, seconds
from ..models import Job, JobState, LeaderLease, ProducerRow
from .elect import free_at
from .states import state_in


def producers(*, now: datetime | None = None) -> Select[Any]:
    """The producers: `name`, `node`, `queue`, `uuid`, `meta` (as text), `started_at`.

    Also `silent_for`, the seconds since the last beat, and the number of `running` jobs.
    """
    claimed = (
        select(Job.attempted_by[2].label("claimer"), func.count().label("count"))
        .where(state_in(JobState.EXECUTING))
        .group_by("claimer")
        .subquery("claimed")
    )
    uuid = cast(ProducerRow.uuid, Text)
    columns: tuple[Any, ...] = (
        *(ProducerRow.name, ProducerRow.node, ProducerRow.queue),
        uuid.label("uuid"),
        cast(ProducerRow.meta, Text).label("meta"),
        ProducerRow.started_at,
        seconds(database_now(now) - ProducerRow.updated_at).label("silent_for"),
        func.coalesce(claimed.c.count, 0).label("running"),
    )
    return (
        select(*columns)
        .outerjoin(claimed, claimed.c.claimer == uuid)
        .order_by(ProducerRow.name, ProducerRow.node, ProducerRow.queue)
    )


def leaders(*, now: datetime | None = None) -> Select[Any]:
    """The leases: `name`, `node`, `elected_at`, and `expires_in` seconds (negative if expired).

    A lease of another Oban has a grace period, as in elections.
    """
    columns: tuple[Any, ...] = (
        *(LeaderLease.name, LeaderLease.node, LeaderLease.elected_at),
        seconds(free_at() - database_now(now)).label("expires_in"),
    )
    return select(*columns).order_by(LeaderLease.name)
