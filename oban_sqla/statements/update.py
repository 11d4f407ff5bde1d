"""Update the fields of jobs. A new time also moves a waiting job to `scheduled` or `available`."""

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    DateTime,
    Executable,
    SmallInteger,
    Text,
    and_,
    any_,
    bindparam,
    case,
    cast,
    column,
    func,
    literal,
)
from sqlalchemy import update as update_rows
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from ..clock import database_now
from ..models import Job, JobState
from ..models.deadline import ENTRY as DEADLINE
from ..models.notation import to_table
from ..models.unique import COUNTED_BY, ENTRY
from .cancel_mark import MARK, marked
from .states import constant, state_in

FIELDS: Mapping[str, Any] = {
    "args": JSONB,
    "max_attempts": SmallInteger,
    "meta": JSONB,
    "priority": SmallInteger,
    "queue": Text,
    "scheduled_at": DateTime,
    "tags": ARRAY(Text),
    "worker": Text,
}
"""The fields that may be changed, and their types."""


@lru_cache(maxsize=64)
def update(fields: frozenset[str], *, now: datetime | None = None) -> Executable:
    """Apply the parameter `changes` to these fields; returns id, queue, state and `scheduled_at`.

    A new `scheduled_at` moves an available job to `scheduled`, or a scheduled one to `available`,
    as in Oban. A new `meta` keeps the entries of the library.
    """
    changes = (
        func.jsonb_to_recordset(cast(bindparam("changes", type_=Text), JSONB))
        .table_valued(
            column("ids", ARRAY(BigInteger)),
            *(column(name, FIELDS[name]) for name in sorted(fields)),
        )
        .render_derived(name="change", with_types=True)
    )
    change = changes.c
    values: dict[str, Any] = {name: change[name] for name in sorted(fields)}
    if "scheduled_at" in fields:
        later = change.scheduled_at > database_now(now)
        values["state"] = case(
            (and_(state_in(JobState.AVAILABLE), later), constant(JobState.SCHEDULED)),
            (and_(state_in(JobState.SCHEDULED), ~later), constant(JobState.AVAILABLE)),
            else_=Job.state,
        )
    if "meta" in fields:
        values["meta"] = new_meta(change.meta)
    return (
        update_rows(Job)
        .where(Job.id == any_(change.ids))
        .values(values)
        .returning(Job.id, Job.queue, Job.state, Job.scheduled_at)
    )


def new_meta(meta: ColumnElement[Any]) -> ColumnElement[Any]:
    """A meta that replaces a job's own, and keeps the entries of the library.

    These are the mark of a job that was cancelled while it runs, its unique key, and, unless the
    new meta has them, its deadline and what its limits count it by.
    """
    new: Any = meta
    kept: ColumnElement[Any] = meta.op("-")(literal(ENTRY, Text))
    for name, holds in (
        (MARK, and_(state_in(JobState.EXECUTING), marked())),
        (ENTRY, Job.meta.has_key(literal(ENTRY, Text))),
        *(
            (name, and_(Job.meta.has_key(literal(name, Text)), ~new.has_key(literal(name, Text))))
            for name in (DEADLINE, *COUNTED_BY)
        ),
    ):
        own = func.jsonb_build_object(literal(name, Text), Job.meta[name])
        kept = case((holds, kept.op("||")(own)), else_=kept)
    return kept


def update_parameters(
    changes: Sequence[tuple[Collection[int], Mapping[str, Any]]],
) -> dict[str, str]:
    """The parameter of `update`: ids of jobs, and their new values."""
    return {
        "changes": json.dumps(
            [
                {"ids": list(ids), **{name: _plain(name, value) for name, value in values.items()}}
                for ids, values in changes
            ],
            allow_nan=False,
        )
    }


def _plain(name: str, value: Any) -> Any:
    if name == "args":
        return to_table(value)
    return value.replace(tzinfo=None).isoformat() if isinstance(value, datetime) else value
