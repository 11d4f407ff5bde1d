"""Claim jobs of a queue in which jobs have limits of their own."""

from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    CompoundSelect,
    Executable,
    FromClause,
    Integer,
    Numeric,
    and_,
    bindparam,
    cast,
    false,
    func,
    literal,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.orm import aliased

from ..clock import database_now, since_statement
from ..models import Job, JobState
from ..statements.claim import executing, of_queue
from ..statements.claimed import claimed_columns
from ..statements.states import constant
from .queue_keys import (
    KEY_ALLOWED,
    KEY_BURST,
    KEY_PERIOD,
    OF_KEY,
    QueueKeys,
    fits_key,
    is_current,
    ranks_of_key,
    stored_id,
)
from .queue_room import QUEUE_RATE, RATE_ALLOWED, RATE_BURST, RATE_PERIOD, queue_room
from .rate_state import OF_RATE
from .starts import count_starts, forget_starts, save_tokens
from .terms import LIMIT_ID, RATE_ID, Terms, is_partitioned, limits_of, partition_of
from .walk import walk
from .without_key import jobs_without_key, none_without_key

WHOLE = 8
"""The number of columns about the whole claim, after the columns of a job."""


@lru_cache(maxsize=64)
def claim_keyed(
    keys: QueueKeys | None = None, *, rates: bool = True, now: datetime | None = None
) -> Executable:
    """Claim up to `limit` jobs of `queue_name`, by keys and within all limits.

    Higher priorities go first. Within a priority, keys share the free slots: first the key with
    the fewest executing jobs, and among equal keys the next one after `cursor`. Jobs without limits
    take turns with limited jobs. The statement must run after `lock_keys`. The limits of the queue
    itself are `global_limit`, `rate_allowed`, `rate_burst` and `rate_period`, NULL for none. With
    `keys`, the queue counts by them: its limits for each key are `key_global_limit` and so on, and
    jobs without stored keys are not claimed. Without `rates`, the statement takes the server a
    third less time, and claims no job that has a rate. The queue itself must not have one.

    Returns at least one row. It has the columns of a job (NULL if there is none) and its `key`. The
    other columns are about the whole claim: the `room` that the queue's own limits left, whether
    another limit has `blocked` jobs, whether `more` jobs may be claimed at once, `next_in`, the
    seconds from the end of the statement until a rate lets the next job start, and whether jobs are
    left since they have a rate.
    """
    time = database_now(now)
    own = queue_room(time, rates=rates)
    walked = walk(time, rates=rates, queue_keys=keys)
    shares = _shares(walked)
    of_keys = _of_keys(shares, keys, rates=rates)
    without_key = jobs_without_key(of_keys) if keys is None else none_without_key(of_keys)
    chosen = _chosen(union_all(of_keys, select(without_key)), own, keys, rates=rates)
    jobs = executing(time, select(chosen.c.id))
    whole = _whole(walked, shares, without_key, chosen, own, time, keys, rates=rates)
    claimed = (
        select(*claimed_columns(jobs.c), chosen.c.key, *whole.c)
        .select_from(whole.outerjoin(jobs.join(chosen, chosen.c.id == jobs.c.id), true()))
        .order_by(chosen.c.priority, chosen.c.rank, chosen.c.without_key)
    )
    if not rates:
        return claimed
    started = _started(chosen, jobs, keys)
    return claimed.add_cte(
        count_starts(started, time), save_tokens(started, time), forget_starts(time)
    )


def _started(chosen: CTE, jobs: CTE, keys: QueueKeys | None) -> CTE:
    """The starts to count, for the rates of the jobs and for the rate of the queue."""
    starting = chosen.join(
        jobs, and_(jobs.c.id == chosen.c.id, jobs.c.state == constant(JobState.EXECUTING))
    )
    terms = (chosen.c.allowed, chosen.c.burst, chosen.c.period, chosen.c.weight)
    of_job = select(chosen.c.rate_id, *terms).select_from(starting)
    of_queue = select(QUEUE_RATE, RATE_ALLOWED, RATE_BURST, RATE_PERIOD, literal(1)).select_from(
        starting
    )
    parts = [
        of_job.where(chosen.c.rate_id.is_not(None)),
        of_queue.where(RATE_ALLOWED.is_not(None)),
    ]
    if keys is not None and keys.rate is not None:
        of_key = (KEY_ALLOWED, KEY_BURST, KEY_PERIOD, literal(1))
        parts.append(select(chosen.c.key_rate_id, *of_key).select_from(starting))
    return union_all(*parts).cte("started")


def _shares(keys: CTE) -> CTE:
    """The number of jobs of each key to read, so that the keys of a priority are filled evenly."""
    limit = bindparam("limit", type_=Integer)
    all_executing = func.sum(keys.c.executing).over(partition_by=keys.c.priority)
    count = func.count().over(partition_by=keys.c.priority)
    # The number of executing jobs per key if the free slots are spread evenly over the keys.
    level = func.ceil(cast(limit + all_executing, Numeric) / count)
    share = func.least(
        limit, keys.c.room, func.greatest(cast(level, Integer) - keys.c.executing, 0)
    )
    return (
        select(keys, cast(share, Integer).label("share"))
        .where(keys.c.limits.is_not(None), keys.c.room > 0)
        .cte("shares")
    )


def _chosen(jobs: CompoundSelect[Any], own: CTE, keys: QueueKeys | None, *, rates: bool) -> CTE:
    """The jobs to claim, each with its rank within its priority."""
    found = jobs.subquery("found")
    rank = (
        func.row_number()
        .over(
            partition_by=(found.c.priority, found.c.without_key),
            order_by=(found.c.turn, found.c.step, found.c.scheduled_at, found.c.id),
        )
        .label("rank")
    )
    ranked = select(found, rank).subquery("ranked")
    order = (ranked.c.priority, ranked.c.rank, ranked.c.without_key)
    # Several keys may share a limit, or a rate.
    of_limit = func.row_number().over(partition_by=ranked.c.limit_id, order_by=order)
    ranks: dict[str, ColumnElement[Any]] = {"of_limit": of_limit}
    if rates:
        ranks["of_rate"] = func.sum(ranked.c.weight).over(
            partition_by=ranked.c.rate_id, order_by=(*order, ranked.c.id)
        )
    if keys is not None:
        ranks |= ranks_of_key(ranked, order)
    counted = select(ranked, *(rank.label(name) for name, rank in ranks.items())).subquery(
        "counted"
    )
    limit = func.least(bindparam("limit", type_=Integer), select(own.c.room).scalar_subquery())
    fits = [or_(counted.c.limit_room.is_(None), counted.c.of_limit <= counted.c.limit_room)]
    if rates:
        fits.append(or_(counted.c.permits.is_(None), counted.c.of_rate <= counted.c.permits))
    return (
        select(counted)
        .where(*fits, *(() if keys is None else fits_key(counted)))
        .order_by(counted.c.priority, counted.c.rank, counted.c.without_key)
        .limit(limit)
        .cte("chosen")
    )


def _of_keys(shares: CTE, keys: QueueKeys | None, *, rates: bool) -> Any:
    job = aliased(Job)
    terms = Terms.of(limits_of(job))
    of_rate = ("weight", "allowed", "burst", "period") if rates else ()
    first = (
        select(job.id, job.scheduled_at, *(getattr(terms, name).label(name) for name in of_rate))
        .where(
            job.state == constant(JobState.AVAILABLE),
            job.queue == of_queue().right,
            is_partitioned(job),
            job.priority == shares.c.priority,
            partition_of(job) == shares.c.key,
            # Other programs may have given one key to jobs with different terms.
            stored_id(job, LIMIT_ID).is_not_distinct_from(shares.c.limit_id),
            stored_id(job, RATE_ID).is_not_distinct_from(shares.c.rate_id),
            *(() if keys is None else (is_current(job, keys),)),
        )
        .order_by(job.scheduled_at, job.id)
        .limit(shares.c.share)
        .with_for_update(key_share=True, skip_locked=True)
        .correlate(shares)
        .lateral("first")
    )
    number = func.row_number().over(
        partition_by=shares.c.step, order_by=(first.c.scheduled_at, first.c.id)
    )
    return select(
        first.c.id,
        shares.c.priority,
        literal(0).label("without_key"),
        (shares.c.executing + number).label("turn"),
        shares.c.step,
        first.c.scheduled_at,
        shares.c.key,
        shares.c.limit_id,
        shares.c.limit_room,
        shares.c.rate_id,
        *(shares.c[name] for name in (OF_RATE if rates else ())),
        *(first.c[name] for name in of_rate),
        *(shares.c[name] for name in (() if keys is None else OF_KEY)),
    ).select_from(shares.join(first, true()))


def _whole(
    walked: CTE,
    shares: CTE,
    without_key: CTE,
    chosen: CTE,
    own: CTE,
    time: ColumnElement[Any],
    keys: QueueKeys | None,
    *,
    rates: bool,
) -> FromClause:
    """The columns about the whole claim."""
    blocked = select(walked.c.key).where(walked.c.limits.is_not(None), walked.c.room <= 0)
    # The key has no room for more jobs than its share, so further jobs of it may wait.
    filled = select(shares.c.key).where(shares.c.share >= shares.c.room)
    # A rate that let jobs start needs another claim, to find when it lets the next job start.
    may = select(shares.c.key).where(
        or_(shares.c.share < shares.c.room, shares.c.rate_id.is_not(None))
    )
    # Jobs that found no room under one limit may have taken room under another one.
    may_be: ColumnElement[bool] = may.exists() if keys is None else true()
    if rates:
        may_be = or_(may_be, RATE_ALLOWED.is_not(None))
    rated = select(walked.c.key).where(walked.c.rate_id.is_not(None))
    some = select(chosen.c.id).exists()
    found = select(func.count()).select_from(without_key).scalar_subquery()
    taken = select(func.count()).where(chosen.c.without_key == literal(1)).scalar_subquery()
    next_in = select(func.min(walked.c.next_in)).scalar_subquery()
    return select(
        own.c.room,
        or_(blocked.exists(), filled.exists()).label("blocked"),
        and_(some, may_be).label("more"),
        (func.least(next_in, own.c.next_in) - since_statement()).label("next_in"),
        and_(found == taken, found < bindparam("limit", type_=Integer)).label("complete"),
        time.label("searched_at"),
        own.c.started,
        (false() if rates else rated.exists()).label("rated"),
    ).subquery("whole")
