"""Write the keys of waiting jobs of a queue whose limits count by `partition`."""

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    DateTime,
    Executable,
    Integer,
    Select,
    SmallInteger,
    Text,
    any_,
    bindparam,
    case,
    cast,
    func,
    literal,
    literal_column,
    select,
    true,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import aliased

from ..clock import EVER, database_now
from ..models import Job, JobState
from ..models.unique import COUNTED_BY
from ..statements.cancel_mark import with_meta
from ..statements.claim import claim_order, of_queue
from ..statements.claimed import representable
from ..statements.custom_plan import planned_anew
from ..statements.states import constant
from .queue_keys import QueueKeys, entry_of, is_current
from .search import PRIORITIES
from .terms import limits_of

PARTITION, LIMITS = COUNTED_BY


@lru_cache(maxsize=64)
def key_jobs(keys: QueueKeys) -> Executable:
    """Write the keys of up to `batch` available jobs of `queue_name`.

    For each priority, the search begins behind an instant in `since` and an id in `after`. The keys
    of a job are written once, and again if its arguments, its queue or the partition have changed.
    Locked jobs are skipped. Returns at least one row: the time of the search, and the `priority`,
    `scheduled_at` and `id` of a job, NULL for none.
    """
    since = (
        func.unnest(
            bindparam("since", type_=ARRAY(DateTime)), bindparam("after", type_=ARRAY(BigInteger))
        )
        .table_valued("since", "after", with_ordinality="n")
        .render_derived(name="since")
    )
    job, other = aliased(Job), aliased(Job)
    first = (
        _without_keys(job, keys)
        .where(job.priority == cast(since.c.n - 1, SmallInteger))
        .where(
            tuple_(job.scheduled_at, job.id)
            > tuple_(func.coalesce(since.c.since, EVER), since.c.after)
        )
        .correlate(since)
        .lateral("first")
    )
    # Other programs may have inserted jobs with priorities beyond those in `since`.
    beyond = _without_keys(other, keys).where(other.priority >= literal(PRIORITIES)).subquery()
    found = union_all(
        select(first.c.id).select_from(since.join(first, true())), select(beyond.c.id)
    ).subquery("found")
    ids = select(found.c.id).limit(bindparam("batch", type_=Integer)).scalar_subquery()
    keyed = (
        update(Job)
        # An array is read once. If ANALYZE ran before the inserts committed, the planner expects
        # a single row, and would search all jobs again for each job.
        .where(Job.id == any_(func.array(ids, type_=ARRAY(BigInteger))))
        .values(meta=with_meta(_entries(keys)))
        .returning(Job.priority, Job.scheduled_at, Job.id)
        .cte("keyed")
    )
    time = select(database_now().label("searched_at")).subquery("time")
    return select(
        time.c.searched_at,
        keyed.c.priority,
        # Python can't represent every instant.
        case((representable(keyed.c.scheduled_at), keyed.c.scheduled_at)).label("scheduled_at"),
        keyed.c.id,
    ).select_from(time.outerjoin(keyed, true()))


def _without_keys(job: Any, keys: QueueKeys) -> Select[int]:
    return (
        select(job.id)
        .where(
            job.state == constant(JobState.AVAILABLE),
            job.queue == of_queue().right,
            ~is_current(job, keys),
            planned_anew(),
        )
        .order_by(*claim_order(job))
        .limit(bindparam("batch", type_=Integer))
        .with_for_update(key_share=True, skip_locked=True)
    )


def _entries(keys: QueueKeys) -> ColumnElement[Any]:
    """The key by which a job waits in the index, and its limits with those of the queue."""
    stored, own = limits_of(Job), entry_of(Job, keys)
    none = cast(literal("{}", Text), JSONB)
    kept = case((func.jsonb_typeof(stored) == literal("object", Text), stored), else_=none)
    ids = (
        limits.op("#>>", return_type=Text())(literal_column(f"'{{{kind},id}}'"))
        for limits in (stored, own)
        for kind in keys._fields
    )
    return func.jsonb_build_object(
        literal(PARTITION, Text),
        func.concat_ws(literal(" ", Text), *ids),
        literal(LIMITS, Text),
        kept.op("||")(func.jsonb_build_object(literal("queue", Text), own)),
        type_=JSONB,
    )
