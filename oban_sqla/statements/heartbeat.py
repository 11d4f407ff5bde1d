"""The rows of `oban_producers`: kept alive by every beat, taken away at the end."""

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
"""The key of a row's meta that says after how many seconds of silence it has expired."""
DELAYED = "delayed_outcomes"
"""The key for the ids of jobs that have ended, and whose outcome can't be written."""
LEFT_BEHIND = "left_behind"
"""The key for the ids of jobs that have ended, while their thread or task goes on."""
UNBROKEN_SINCE = "unbroken_since"
"""The key for the second of the epoch since which it was never away, nor silent for long."""

FOREIGN_EXPIRY = 60.0
"""Seconds after which rows of another Oban have expired: they are written every fifteen."""
LONG = 0.375
"""The part of its expiry after which a silence is long: one beat and a half."""


def beat(
    producers: Sequence[dict[str, Any]], *, expiry: float, now: datetime | None = None
) -> Executable:
    """Say that the producers (uuid, name, node, queue, meta, started_at or None) are alive.

    A row that is gone is written anew, with the `started_at` that is given: the table is unlogged,
    so that a crash of the server empties it, and somebody may have taken us for dead. Each row
    tells, by the database's clock, since when nothing of the kind, and no outage, has happened.
    Returns the `uuid` and `started_at` of each, and whether there are `others`: living producers of
    another Oban.
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
    unbroken = new.updated_at - ProducerRow.updated_at <= interval(
        cast(bindparam("long", LONG * expiry, Float), Float)
    )
    kept = func.jsonb_build_object(literal(UNBROKEN_SINCE, Text), since)
    return statement.on_conflict_do_update(
        index_elements=[ProducerRow.uuid],
        set_={
            "meta": case((unbroken, new.meta.op("||")(kept)), else_=new.meta),
            "updated_at": new.updated_at,
        },
    ).returning(ProducerRow.uuid, ProducerRow.started_at, _others(time).label("others"))


def _others(time: ColumnElement[Any]) -> ColumnElement[bool]:
    other = aliased(ProducerRow)
    living = other.updated_at > time - interval(literal(FOREIGN_EXPIRY, Float))
    return select(other.uuid).where(~other.meta.has_key(EXPIRY), living).exists()


def end(uuids: Sequence[UUID]) -> Delete:
    """Take the producers' rows away."""
    return delete(ProducerRow).where(ProducerRow.uuid.in_(uuids))
