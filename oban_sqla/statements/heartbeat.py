"""Write the heartbeats of producers to `oban_producers`, and delete the rows of stopped ones."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    DateTime,
    Delete,
    Executable,
    Float,
    Text,
    bindparam,
    case,
    cast,
    column,
    delete,
    func,
    literal,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.orm import aliased

from ..clock import database_now, interval, seconds
from ..models import ProducerRow

EXPIRY = "expiry"
"""The key in `meta`: the producer has expired after this many seconds without a beat."""
DELAYED = "delayed_outcomes"
"""The key in `meta` for the ids of ended jobs whose outcome can't be written yet."""
REFUSED = "refused_jobs"
"""The key in `meta` for the ids of jobs that the database refuses to claim."""
LEFT_BEHIND = "left_behind"
"""The key in `meta` for the ids of ended jobs whose thread or task still runs."""
UNBROKEN_SINCE = "unbroken_since"
"""The key in `meta`: since when, in seconds of the epoch, no beat was missing or late."""

FOREIGN_EXPIRY = 60.0
"""Seconds without a beat after which a producer of another Oban has expired: it beats every 15."""
LONG = 0.375
"""A beat is late after this fraction of the expiry, which is one and a half intervals."""


def beat(
    producers: Sequence[dict[str, Any]], *, expiry: float, now: datetime | None = None
) -> Executable:
    """Store that the producers (uuid, name, node, queue, meta, started_at or None) are alive.

    A row that is missing is inserted again with its `started_at`. A server crash empties the
    unlogged table, and another node may have taken this one for dead. `unbroken_since` in each row
    is the time, by the database's clock, since when no row was missing and no beat was late.
    Returns the `uuid` and `started_at` of each, and `foreign`: whether producers of another Oban
    are alive.
    """
    records = (
        func.jsonb_to_recordset(cast(bindparam("producers", json.dumps(producers), Text), JSONB))
        .table_valued(
            column("uuid", ProducerRow.uuid.type),
            column("name", Text),
            column("node", Text),
            column("queue", Text),
            column("meta", JSONB),
            column("started_at", DateTime),
        )
        .render_derived(name="record", with_types=True)
    )
    time = database_now(now)
    begun = func.jsonb_build_object(
        literal(EXPIRY, Text),
        cast(bindparam("expiry", expiry, Float), Float),
        literal(UNBROKEN_SINCE, Text),
        seconds(time),
    )
    columns = ["uuid", "name", "node", "queue"]
    statement = insert(ProducerRow).from_select(
        [*columns, "meta", "started_at", "updated_at"],
        select(
            *(records.c[name] for name in columns),
            records.c.meta.op("||")(begun),
            func.coalesce(records.c.started_at, time),
            time,
        ),
        include_defaults=False,
    )
    new = statement.excluded
    since = func.coalesce(ProducerRow.meta[UNBROKEN_SINCE], new.meta[UNBROKEN_SINCE])
    # If the clock was set back, the unbroken time ends, too: the beats of the other producers look
    # late then.
    step = func.abs(seconds(new.updated_at - ProducerRow.updated_at))
    unbroken = step <= cast(bindparam("long", LONG * expiry, Float), Float)
    kept = func.jsonb_build_object(literal(UNBROKEN_SINCE, Text), since)
    return statement.on_conflict_do_update(
        index_elements=[ProducerRow.uuid],
        set_={
            "meta": case((unbroken, new.meta.op("||")(kept)), else_=new.meta),
            "updated_at": new.updated_at,
        },
    ).returning(ProducerRow.uuid, ProducerRow.started_at, _are_foreign_alive(time).label("foreign"))


def _are_foreign_alive(time: ColumnElement[Any]) -> ColumnElement[bool]:
    other = aliased(ProducerRow)
    living = other.updated_at > time - interval(literal(FOREIGN_EXPIRY, Float))
    return select(other.uuid).where(~other.meta.has_key(EXPIRY), living).exists()


def end(uuids: Sequence[UUID]) -> Delete:
    """Delete the rows of the producers."""
    return delete(ProducerRow).where(ProducerRow.uuid.in_(uuids))
