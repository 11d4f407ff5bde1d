"""The rows of `oban_producers`: kept alive by every beat, taken away at the end."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    DateTime,
    Delete,
    Executable,
    Float,
    Text,
    bindparam,
    cast,
    column,
    delete,
    extract,
    func,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB, insert

from ..clock import database_now
from ..models import Producer


def beat(producers: Sequence[dict[str, Any]], *, now: datetime | None = None) -> Executable:
    """Say that the producers (uuid, name, node, queue, meta, started_at or None) are alive.

    Returns a row for each: its `uuid`, its `started_at`, and `silent_for`, the seconds since it was
    written last; NULL for a row that was not there. That is written anew, with the `started_at`
    that is given: the table is unlogged, so that a crash of the server empties it, and somebody may
    have taken us for dead.
    """
    records = (
        func.jsonb_to_recordset(cast(bindparam("producers", json.dumps(producers), Text), JSONB))
        .table_valued(
            column("uuid", Producer.uuid.type),
            column("name", Text),
            column("node", Text),
            column("queue", Text),
            column("meta", JSONB),
            column("started_at", DateTime),
        )
        .render_derived(name="record", with_types=True)
    )
    time = database_now(now)
    columns = ["uuid", "name", "node", "queue", "meta"]
    statement = insert(Producer).from_select(
        [*columns, "started_at", "updated_at"],
        select(
            *(records.c[name] for name in columns),
            func.coalesce(records.c.started_at, time),
            time,
        ),
        include_defaults=False,
    )
    written = (
        statement.on_conflict_do_update(
            index_elements=[Producer.uuid],
            set_={"meta": statement.excluded.meta, "updated_at": statement.excluded.updated_at},
        )
        .returning(Producer.uuid, Producer.started_at)
        .cte("written")
    )
    # As it was before: this part of the statement does not see what the other writes.
    before = Producer.__table__.alias("before")
    return select(
        written.c.uuid,
        written.c.started_at,
        cast(extract("epoch", time - before.c.updated_at), Float).label("silent_for"),
    ).select_from(written.outerjoin(before, before.c.uuid == written.c.uuid))


def end(uuids: Sequence[UUID]) -> Delete:
    """Take the producers' rows away."""
    return delete(Producer).where(Producer.uuid.in_(uuids))
