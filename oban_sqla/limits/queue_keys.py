"""The keys of a queue whose limits count by `partition`, and their part in a claim.

Any program may insert jobs, and only the nodes know the partition. So a node writes the keys into
the meta of waiting jobs, before it claims. All conditions are checked against the current values.
"""

from collections.abc import Mapping
from functools import reduce
from typing import Any, NamedTuple

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Double,
    FromClause,
    Integer,
    Text,
    and_,
    bindparam,
    case,
    cast,
    func,
    literal,
    literal_column,
    null,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, array
from sqlalchemy.orm import aliased

from ..config.partition import Partition
from ..models import Job, JobState
from ..models.partition import LONGEST_KEY
from ..statements.claim import of_queue
from ..statements.states import constant
from .queue_room import QUEUE_RATE
from .rows import RateRow
from .terms import enough_in, tokens, used

LIMIT_ID: ColumnElement[Any] = literal_column("'{oban_sqla_limits,queue,limit,id}'")
RATE_ID: ColumnElement[Any] = literal_column("'{oban_sqla_limits,queue,rate,id}'")

KEY_LIMIT = cast(bindparam("key_global_limit", type_=Integer), Integer)
KEY_ALLOWED = cast(bindparam("key_rate_allowed", type_=Integer), Integer)
KEY_BURST = cast(bindparam("key_rate_burst", type_=Integer), Integer)
KEY_PERIOD = cast(bindparam("key_rate_period", type_=Double), Double)


class QueueKeys(NamedTuple):
    """The partitions of a queue's limits."""

    limit: Partition | None
    """The partition of the global limit."""
    rate: Partition | None
    """The partition of the rate limit."""


OF_KEY: Mapping[str, Any] = {
    "key_limit_id": Text,
    "key_limit_room": Integer,
    "key_rate_id": Text,
    "key_permits": Integer,
}
"""The columns that a walk over such a queue has in addition."""


def entry_of(job: Any, keys: QueueKeys) -> ColumnElement[Any]:
    """The keys of a job for its meta, under `queue`: like the terms of a worker's limit and rate.

    No value of a job can make this fail.
    """
    entries = []
    for kind, partition in keys._asdict().items():
        if partition is not None:
            key = _key(job, partition)
            by = literal(partition.label, Text)
            columns = {"id": _id(by, key), "by": by, "key": key}
            pairs = [part for name, value in columns.items() for part in (_text(name), value)]
            entries += [_text(kind), func.jsonb_build_object(*pairs)]
    return func.jsonb_build_object(*entries, type_=JSONB)


def is_current(job: Any, keys: QueueKeys) -> ColumnElement[bool]:
    """Whether the stored keys of a job are those of its values, its queue, and its partition."""
    return and_(
        *(
            stored_id(job, path).is_not_distinct_from(_id_of(job, partition))
            for path, partition in zip((LIMIT_ID, RATE_ID), keys, strict=True)
            if partition is not None
        )
    )


def stored_id(job: Any, path: ColumnElement[Any]) -> ColumnElement[str]:
    """The stored key for the limit or the rate of the queue."""
    found: ColumnElement[str] = job.meta.op("#>>", return_type=Text())(path)
    return found


def executing_with(job: Any, partition: Partition) -> Any:
    """Select the ids of the executing jobs of the queue, and the `key` of each.

    The keys are computed from the values of the jobs, since nodes of another Oban write no keys.
    """
    return select(job.id, _id_of(job, partition).label("key")).where(
        job.state == constant(JobState.EXECUTING), job.queue == of_queue().right
    )


def key_state(following: FromClause, keys: QueueKeys, time: ColumnElement[Any]) -> FromClause:
    """The counts of the first job's key, each computed once: `OF_KEY`, `executing`, `next_in`."""
    limit_id, rate_id = (
        cast(following.c.limits.op("#>>")(literal_column(f"'{{queue,{kind},id}}'")), Text)
        for kind in keys._fields
    )
    row = aliased(RateRow)
    one = select(limit_id.label("limit_id"), rate_id.label("rate_id")).subquery().lateral("ids")
    executing: ColumnElement[Any] = literal(0)
    if keys.limit is not None:
        counts = _executing_by_key(keys.limit)
        executing = func.coalesce(cast(counts[one.c.limit_id].astext, Integer), 0)
    starts = used(one.c.rate_id, KEY_PERIOD, time) if keys.rate else cast(null(), Integer)
    saved = tokens(row, KEY_ALLOWED, KEY_BURST, KEY_PERIOD, time)
    counted = (
        select(
            one.c.limit_id,
            one.c.rate_id,
            executing.label("executing"),
            starts.label("starts"),
            saved.label("saved"),
        )
        .select_from(one.outerjoin(row, row.rate == one.c.rate_id))
        .offset(literal_column("0"))
        .correlate(following)
        .lateral("counted_of_key")
    )
    of = counted.c
    shares: ColumnElement[bool] = bindparam("key_shares", type_=Boolean)
    room = case((~shares, KEY_LIMIT - of.executing)) if keys.limit else cast(null(), Integer)
    log = KEY_ALLOWED + KEY_BURST - of.starts
    permits = func.least(log, case((KEY_BURST > 0, cast(func.floor(of.saved), Integer))))
    in_log = enough_in(of.rate_id, KEY_ALLOWED + KEY_BURST, KEY_PERIOD, literal(1), time)
    in_tokens = case((KEY_BURST > 0, (1 - of.saved) * KEY_PERIOD / KEY_ALLOWED))
    columns = {
        # A job without keys waits until they are written.
        "key_limit_room": case((of.limit_id.is_(None), 0), else_=room) if keys.limit else room,
        "key_permits": case((of.rate_id.is_(None), 0), else_=permits)
        if keys.rate
        else cast(null(), Integer),
        "next_in": case((permits < 1, func.greatest(in_log, in_tokens)))
        if keys.rate
        else cast(null(), Double),
    }
    return (
        select(
            of.limit_id.label("key_limit_id"),
            of.rate_id.label("key_rate_id"),
            of.executing.label("key_executing"),
            *(cast(value, OF_KEY.get(name, Double)).label(name) for name, value in columns.items()),
        )
        .offset(literal_column("0"))
        .correlate(following)
        .lateral("of_key")
    )


def ranks_of_key(ranked: Any, order: Any) -> dict[str, ColumnElement[Any]]:
    """The rank of each job among the jobs of its key."""
    return {
        f"of_key_{kind}": func.row_number().over(
            partition_by=ranked.c[f"key_{kind}_id"], order_by=order
        )
        for kind in QueueKeys._fields
    }


def fits_key(counted: Any) -> list[ColumnElement[bool]]:
    """Whether the rank of a job is within the room of its key."""
    room, permits = counted.c.key_limit_room, counted.c.key_permits
    return [
        or_(room.is_(None), counted.c.of_key_limit <= room),
        or_(permits.is_(None), counted.c.of_key_rate <= permits),
    ]


def _executing_by_key(partition: Partition) -> Any:
    """The numbers of executing jobs of the queue by key, as a JSON object, counted once."""
    job = executing_with(aliased(Job), partition).subquery()
    counted = select(job.c.key, func.count().label("count")).group_by(job.c.key).subquery("of_keys")
    return (
        select(func.jsonb_object_agg(counted.c.key, counted.c.count, type_=JSONB))
        .correlate(None)
        .scalar_subquery()
    )


def _id_of(job: Any, partition: Partition) -> ColumnElement[str]:
    return _id(literal(partition.label, Text), _key(job, partition))


def _id(by: ColumnElement[str], key: ColumnElement[str]) -> ColumnElement[str]:
    return func.concat(QUEUE_RATE, _text(" "), by, _text("="), key)


def _key(job: Any, partition: Partition) -> ColumnElement[str]:
    """The values of a job as JSON. A long text is replaced by its beginning and a digest."""
    values: list[ColumnElement[str]] = []
    for field in partition.fields:
        if field == "worker":
            values.append(cast(func.to_jsonb(job.worker), Text))
        else:
            values += [_value(getattr(job, field), key) for key in partition.keys]
    text = reduce(lambda before, value: before + _text(", ") + value, values)
    digest = func.to_hex(func.hashtextextended(text, literal(0)))
    cut = func.left(text, literal(LONGEST_KEY // 2)) + _text("... ") + digest
    return case((func.length(text) <= literal(LONGEST_KEY), text), else_=cut)


def _value(column: Any, key: str) -> ColumnElement[str]:
    path = cast(array([_text(name) for name in key.split(".")]), ARRAY(Text))
    found = column.op("#>", return_type=JSONB())(path)
    return func.coalesce(cast(found, Text), _text("null"))


def _text(value: str) -> ColumnElement[str]:
    return literal(value, Text)
