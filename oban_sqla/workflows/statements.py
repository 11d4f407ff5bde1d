"""The statements that insert workflows and their steps, and add steps to a running workflow."""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Double,
    Executable,
    FromClause,
    Integer,
    Text,
    bindparam,
    cast,
    column,
    func,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, insert
from sqlalchemy.orm import aliased

from ..clock import nearest, seconds
from ..models import Job
from .step import Step
from .workflow import Workflow

_COUNTS = (
    *("suspended", "available", "scheduled", "executing", "retryable"),
    *("total", "open", "lasts", "untried"),
)
_WORKFLOW = {
    "id": Text(),
    "name": Text(),
    "parent_id": Text(),
    "meta": JSONB(),
    "unique_key": Text(),
    **dict.fromkeys(_COUNTS, Integer()),
}
_STEP = {
    "job_id": BigInteger(),
    "workflow_id": Text(),
    "path": ARRAY(Text),
    "name": Text(),
    "kind": Text(),
    "waits": Integer(),
    "dependents": ARRAY(BigInteger),
    "on_cancelled": Text(),
    "on_discarded": Text(),
    "on_deleted": Text(),
    "delay": Double(),
}


@lru_cache(maxsize=64)
def insert_workflows(*, prefix: str | None = None, announced: bool = True) -> Executable:
    """Insert `rows` of workflows. Returns the id and `inserted_at` of each, without duplicates.

    The statement waits for another transaction that inserts a unique workflow of the same name.
    """
    row = _given(_WORKFLOW).c
    values = [func.coalesce(row[name], 0) if name in _COUNTS else row[name] for name in _WORKFLOW]
    return (
        insert(Workflow)
        .from_select([*_WORKFLOW], select(*values), include_defaults=False)
        .on_conflict_do_nothing(
            index_elements=[Workflow.unique_key], index_where=Workflow.unique_key.is_not(None)
        )
        .returning(Workflow.id, Workflow.inserted_at)
    )


@lru_cache(maxsize=64)
def find_unique(*, prefix: str | None = None, announced: bool = True) -> Executable:
    """The id of the unique workflow with the name `key` that has not ended."""
    return select(Workflow.id).where(Workflow.unique_key == bindparam("key", type_=Text))


@lru_cache(maxsize=64)
def insert_steps(*, prefix: str | None = None, announced: bool = True) -> Executable:
    """Insert `rows` of steps, whose jobs exist. Returns the job of each."""
    row = _given(_STEP).c
    return (
        insert(Step)
        .from_select([*_STEP], select(*(row[name] for name in _STEP)), include_defaults=False)
        .returning(Step.job_id)
    )


@lru_cache(maxsize=64)
def lock_path(*, prefix: str | None = None, announced: bool = True) -> Executable:
    """Lock the workflows around `id`, the outermost first, and `id`. Returns id and state."""
    outer = aliased(Workflow)
    around = (
        select(Workflow.id, Workflow.parent_id, literal(0).label("depth"))
        .where(Workflow.id == bindparam("id", type_=Text))
        .cte("around", recursive=True)
    )
    around = around.union_all(
        select(outer.id, outer.parent_id, around.c.depth + 1).where(outer.id == around.c.parent_id)
    )
    return (
        select(Workflow.id, Workflow.state)
        .join(around, around.c.id == Workflow.id)
        .order_by(around.c.depth.desc())
        .with_for_update(of=Workflow, key_share=True)
    )


@lru_cache(maxsize=64)
def look_up(*, prefix: str | None = None, announced: bool = True) -> Executable:
    """The steps of the workflow `id` among the `names`: name, job, kind, outcome and its time.

    The time is in seconds of the epoch; NULL if the job is gone.
    """
    names = func.jsonb_array_elements_text(cast(bindparam("names", type_=Text), JSONB))
    ended_at = nearest(func.greatest(Job.completed_at, Job.cancelled_at, Job.discarded_at))
    return (
        select(Step.name, Step.job_id, Step.kind, Step.ended, seconds(ended_at))
        .outerjoin(Job, Job.id == Step.job_id)
        .where(
            Step.workflow_id == bindparam("id", type_=Text),
            Step.name.in_(select(names)),
        )
    )


@lru_cache(maxsize=64)
def add_dependents(*, prefix: str | None = None, announced: bool = True) -> Executable:
    """Add new dependents to stored steps: `rows` of job and dependents."""
    row = _given({"job_id": BigInteger(), "dependents": ARRAY(BigInteger)}).c
    return (
        update(Step)
        .where(Step.job_id == row.job_id)
        .values(dependents=func.array_cat(Step.dependents, row.dependents))
        .returning(Step.job_id)
    )


@lru_cache(maxsize=64)
def count_more(*, prefix: str | None = None, announced: bool = True) -> Executable:
    """Add the numbers of new steps to workflows: `rows` of id, total, open, lasts and untried."""
    names = ("total", "open", "lasts", "untried")
    row = _given({"id": Text(), **dict.fromkeys(names, Integer())}).c
    return (
        update(Workflow)
        .where(Workflow.id == row.id)
        .values({name: getattr(Workflow, name) + row[name] for name in names})
        .returning(Workflow.id)
    )


def rows(given: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The parameter `rows`."""
    return {"rows": json.dumps(given, allow_nan=False)}


def _given(columns: Mapping[str, Any]) -> FromClause:
    return (
        func.jsonb_to_recordset(cast(bindparam("rows", type_=Text), JSONB))
        .table_valued(*(column(name, kind) for name, kind in columns.items()))
        .render_derived(name="given", with_types=True)
    )
