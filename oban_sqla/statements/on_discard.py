"""Enqueue the `on_discard` jobs of discarded jobs, in the statement that discards them."""

from typing import Any

from sqlalchemy import (
    CTE,
    Boolean,
    ColumnElement,
    SmallInteger,
    Text,
    and_,
    cast,
    func,
    insert,
    literal,
    literal_column,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from ..models import Job, JobState
from ..models.on_discard import ARGUMENT, ENTRY
from .states import constant

# Other programs may write any JSON into meta, and no cast of it may fail the statement.
_COMPLETE = (
    f'strict $.{ENTRY} ? (@.worker.type() == "string" && @.worker != ""'
    ' && @.queue.type() == "string" && @.queue != ""'
    " && @.max_attempts >= 1 && @.max_attempts <= 32767"
    " && @.priority >= 0 && @.priority <= 9"
    ' && @.tags.type() == "array" && @.meta.type() == "object")'
)


def has_entry(meta: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether a job with this meta has an `on_discard` job."""
    path: ColumnElement[Any] = literal_column(f"'{_COMPLETE}'::jsonpath")
    return func.jsonb_path_exists(meta, path, literal_column("'{}'"), true(), type_=Boolean)


def enqueued(rows: CTE) -> CTE:
    """Insert a job for each discarded job among `rows` that has an entry.

    Returns the columns of the new jobs that `announce_rows` needs.
    """
    row = rows.c
    entry = row.meta[ENTRY]
    tag = func.jsonb_array_elements_text(entry["tags"]).column_valued("tag")
    tags = func.array(select(tag).scalar_subquery(), type_=ARRAY(Text))
    args = func.jsonb_build_object(literal(ARGUMENT, Text), row.id, type_=JSONB)
    return (
        insert(Job)
        .from_select(
            ["worker", "queue", "max_attempts", "priority", "tags", "meta", "args"],
            select(
                entry["worker"].astext,
                entry["queue"].astext,
                cast(entry["max_attempts"], SmallInteger),
                cast(entry["priority"], SmallInteger),
                tags,
                entry["meta"],
                args,
            )
            .where(and_(row.state == constant(JobState.DISCARDED), has_entry(row.meta)))
            .order_by(row.id),
            include_defaults=False,
        )
        .returning(Job.queue, Job.state, Job.scheduled_at)
        .cte("on_discard")
    )
