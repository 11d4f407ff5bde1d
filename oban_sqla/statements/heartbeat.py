"""The rows of `oban_producers`: kept alive by every beat, taken away at the end."""

import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Delete, Text, bindparam, cast, column, delete, func, select
from sqlalchemy.dialects.postgresql import JSONB, Insert, insert

from ..clock import database_now
from ..models import Producer


def beat(producers: Sequence[dict[str, Any]]) -> Insert:
    """Say that the producers (uuid, name, node, queue, meta) are alive.

    A row that is gone is written anew: the table is unlogged, so that a crash of the server empties
    it, and somebody may have taken us for dead.
    """
    records = (
        func.jsonb_to_recordset(cast(bindparam("producers", json.dumps(producers), Text), JSONB))
        .table_valued(
            column("uuid", Producer.uuid.type),
            column("name", Text),
            column("node", Text),
            column("queue", Text),
            column("meta", JSONB),
        )
        .render_derived(name="record", with_types=True)
    )
    now = database_now()
    columns = ["uuid", "name", "node", "queue", "meta"]
    statement = insert(Producer).from_select(
        [*columns, "started_at", "updated_at"],
        select(*(records.c[name] for name in columns), now, now),
        include_defaults=False,
    )
    return statement.on_conflict_do_update(
        index_elements=[Producer.uuid],
        set_={"meta": statement.excluded.meta, "updated_at": statement.excluded.updated_at},
    )


def end(uuids: Sequence[UUID]) -> Delete:
    """Take the producers' rows away."""
    return delete(Producer).where(Producer.uuid.in_(uuids))
