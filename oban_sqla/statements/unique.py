"""Insert jobs that hold a unique key; find or change the existing jobs of duplicates.

Only the constraint of the table decides which job is a duplicate.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    Executable,
    Float,
    Text,
    and_,
    any_,
    bindparam,
    case,
    cast,
    false,
    func,
    literal,
    literal_column,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TEXT, insert

from ..clock import database_now, interval
from ..models import Job, JobState
from ..models.job import COLUMNS
from ..models.types import job_state
from ..models.unique import CONSTRAINT, ENTRY, REPLACEABLE
from ..models.unique_job import replaces
from .announce import announce_rows
from .insert import FIELDS, given, records
from .states import constant, state_in
from .update import new_meta

_ENTRY = literal_column(f"'{ENTRY}'", TEXT)


@lru_cache(maxsize=64)
def insert_unique(*, prefix: str | None = None, announced: bool = True) -> Executable:
    """Insert the parameter `jobs`, each with a unique key, and skip the duplicates.

    Returns the key, id and `inserted_at` of each inserted job. Jobs are inserted in the order of
    their keys, so that two statements can't deadlock.
    """
    record = given().c
    # The period of the key begins now, not when a long transaction began.
    now = database_now()
    key = record.meta[_ENTRY]["key"].astext
    inserted = (
        insert(Job)
        .from_select(
            [*FIELDS, "scheduled_at", "inserted_at"],
            select(
                cast(record.state, job_state),
                *(record[field] for field in FIELDS[1:]),
                func.coalesce(record.scheduled_at, now),
                now,
            ).order_by(key),
            include_defaults=False,
        )
        .on_conflict_do_nothing(constraint=CONSTRAINT)
        .returning(
            Job.meta[_ENTRY]["key"].astext.label("key"),
            *(Job.id, Job.inserted_at, Job.state, Job.queue, Job.scheduled_at),
        )
        .cte("inserted")
    )
    columns: list[Any] = [inserted.c.key, inserted.c.id, inserted.c.inserted_at]
    if announced:
        columns.append(announce_rows(inserted, prefix))
    return select(*columns)


@lru_cache(maxsize=64)
def settle(*, prefix: str | None = None, announced: bool = True) -> Executable:
    """Find the existing jobs of duplicates, and replace the fields that the duplicates may replace.

    Takes `duplicates()`. Returns the `n` of each duplicate and its existing job, as JSON text. A
    duplicate without a row conflicts with no job any more, or with a job that has just changed.
    """
    duplicates = select(given()).cte("duplicates")
    found = _found(duplicates)
    replaced = _replaced(duplicates, found)
    written = select(replaced.c.n, _whole(replaced))
    untouched = (
        select(found.c.n, _whole(Job.__table__))
        .join(found, found.c.id == Job.id)
        .where(~_is_to_change(found))
    )
    both = written.union_all(untouched).subquery("settled")
    columns: list[Any] = [*both.c]
    if announced:
        columns.append(announce_rows(replaced, prefix))
    return select(*columns)


@lru_cache(maxsize=64)
def find(*, prefix: str | None = None, announced: bool = True) -> Executable:
    """`settle` for duplicates that replace nothing: it needs no privilege to update jobs."""
    found = _found(select(given()).cte("duplicates"))
    return select(found.c.n, _whole(Job.__table__)).join(found, found.c.id == Job.id)


def duplicates(jobs: Sequence[Job]) -> dict[str, str]:
    """The parameters of `settle` and `find`. Jobs that replace fields need distinct keys."""
    rules = [replaces(job) for job in jobs]
    return {"jobs": records(jobs), "rules": json.dumps(rules)}


def _found(duplicates: CTE) -> CTE:
    """The existing job of each duplicate."""
    entry = duplicates.c.meta[_ENTRY]
    now = database_now()
    period = cast(entry["period"].astext, Float)
    key = _number(entry["key"].astext)
    conflicts = and_(
        _key(Job).op("&&")(func.int8range(key, key, literal_column("'[]'"))),
        _span(Job).op("&&")(func.tsrange(now, now + interval(period))),
        _counts(Job),
    )
    # With LIMIT or min(), and few statistics, the planner would scan along the ids.
    ids = func.array_agg(Job.id, type_=ARRAY(BigInteger))
    there = select(ids[1].label("id")).where(conflicts).lateral("there")
    rules = cast(bindparam("rules", type_=Text), JSONB)[duplicates.c.n].label("rules")
    return (
        select(duplicates.c.n, rules, there.c.id).join(there, there.c.id.is_not(None)).cte("found")
    )


def _replaced(duplicates: CTE, found: CTE) -> CTE:
    # If the job has begun or ended since it was found, the caller has to find it again. The
    # condition differs from the constraint's, whose whole index would be read otherwise.
    still = Job.meta[_ENTRY]["states"].has_key(_state())
    locked = (
        select(Job.id)
        .join(found, found.c.id == Job.id)
        .where(_is_to_change(found), still)
        .order_by(Job.id)
        .with_for_update(of=Job)
    )
    new = duplicates.c
    rules = found.c.rules[_state()]

    def value(field: str) -> ColumnElement[Any]:
        chosen: ColumnElement[Any] = new[field]
        match field:
            case "meta":
                chosen = new_meta(new.meta)
            case "max_attempts":
                # The table's check refuses fewer attempts than the job has had.
                chosen = func.greatest(new.max_attempts, Job.attempt, 1)
            case "scheduled_at":
                chosen = func.coalesce(new.scheduled_at, database_now())
        return case((rules.has_key(literal(field, Text)), chosen), else_=getattr(Job, field))

    moves = rules.has_key(literal("scheduled_at", Text))
    later = new.scheduled_at > database_now()
    state = case(
        (and_(moves, state_in(JobState.AVAILABLE), later), constant(JobState.SCHEDULED)),
        (
            and_(moves, state_in(JobState.SCHEDULED), func.coalesce(later, false()).is_(False)),
            constant(JobState.AVAILABLE),
        ),
        else_=Job.state,
    )
    return (
        update(Job)
        .where(Job.id == found.c.id, found.c.n == new.n, _is_to_change(found))
        .where(Job.id == any_(func.array(locked.scalar_subquery(), type_=ARRAY(BigInteger))))
        .values(state=state, **{field: value(field) for field in REPLACEABLE})
        .returning(found.c.n, *Job.__table__.c)
        .cte("replaced")
    )


def _is_to_change(found: CTE) -> ColumnElement[bool]:
    return func.coalesce(found.c.rules.has_key(_state()), false())


def _whole(row: Any) -> ColumnElement[str]:
    pairs = [part for name in COLUMNS for part in (literal(name, Text), row.c[name])]
    return cast(func.jsonb_build_object(*pairs), Text)


def _state() -> ColumnElement[str]:
    return cast(Job.state, Text)


# PostgreSQL uses the constraint's index only for exactly the expressions of the constraint.


def _counts(job: Any) -> ColumnElement[bool]:
    """Whether a job holds a unique key and is in one of the states in which the key counts."""
    names: dict[Any, Any] = {
        literal_column(f"'{state}'"): literal_column(f"'{state}'", TEXT)
        for state in JobState
        if state is not JobState.SUSPENDED
    }
    state = case(names, value=job.state, else_=literal_column("'suspended'", TEXT))
    states = job.meta.op("#>", return_type=JSONB())(literal_column(f"'{{{ENTRY},states}}'"))
    return and_(job.meta.has_key(_ENTRY), states.has_key(state))


def _key(job: Any) -> ColumnElement[Any]:
    number = _number(job.meta.op("#>>")(literal_column(f"'{{{ENTRY},key}}'")))
    return func.int8range(number, number, literal_column("'[]'"))


def _number(key: Any) -> ColumnElement[int]:
    return func.hashtextextended(key, literal_column("0")).op(">>")(literal_column("1"))


def _span(job: Any) -> ColumnElement[Any]:
    period = cast(job.meta.op("#>>")(literal_column(f"'{{{ENTRY},period}}'")), Float(53))
    zero: ColumnElement[Any] = literal_column("0")
    until = func.make_interval(zero, zero, zero, zero, zero, zero, period)
    return func.tsrange(job.inserted_at, job.inserted_at.op("+")(until))
