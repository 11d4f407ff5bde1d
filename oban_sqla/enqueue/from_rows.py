"""Give inserted jobs the values of their rows."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import inspect
from sqlalchemy.orm import Session, make_transient
from sqlalchemy.orm.attributes import instance_state

from ..models import Job, validation
from ..models.instrumentation import become_detached, become_persistent, values_of
from ..models.job import BY_ROW, UNSET
from .gc_pause import paused

_NOTHING: Mapping[str, Any] = dict.fromkeys(UNSET)


def fill_from(rows: Sequence[Sequence[Any]], jobs: Sequence[Job]) -> None:
    """`fill` jobs from the rows that their `Batch.make` returns."""
    fill(jobs, *_read(rows))


def fill_pending(rows: Sequence[Sequence[Any]], jobs: Sequence[Job], session: Session) -> None:
    """`fill_from` for pending jobs of a session: they become persistent."""
    with paused(len(jobs)):
        _fill(jobs, *_read(rows))
        become_persistent(session, jobs)
    columns = frozenset(inspect(Job).column_attrs.keys())
    for job in jobs:
        if not columns <= values_of(job).keys():
            # A column that the user has added to the model.
            session.expire(job, columns.difference(values_of(job)))


def fill(jobs: Sequence[Job], ids: Sequence[int], inserted_at: object) -> None:
    """Give jobs the ids and the `inserted_at` of their rows, and make them detached.

    A detached job that is added to a session is not inserted again.
    """
    with paused(len(jobs)):
        _fill(jobs, ids, inserted_at)
        become_detached(Job, jobs, ids)


def _read(rows: Sequence[Sequence[Any]]) -> tuple[Sequence[int], object]:
    if not rows:
        raise ValueError("execute() returned no rows for jobs that it had to insert")
    ids, inserted_at, *_ = rows[0]
    # `insert_few` returns a row for each job, `insert` one row with all ids.
    return sorted(row[0] for row in rows) if isinstance(ids, int) else ids, inserted_at


def _fill(jobs: Sequence[Job], ids: Sequence[int], inserted_at: object) -> None:
    if len(ids) != len(jobs):
        raise ValueError(f"execute() returned {len(ids)} ids for {len(jobs)} jobs")
    now = validation.instant("inserted_at", inserted_at)
    for job, id in zip(jobs, ids, strict=True):
        values = values_of(job)
        if "id" in values and instance_state(job).key is not None:
            # The job was inserted before, perhaps in a transaction that was rolled back. It is a
            # new row now.
            make_transient(job)
        values["id"] = id
        values["inserted_at"] = now
        values.setdefault("scheduled_at", now)
        values.update(_NOTHING)


def make_new(job: Job) -> None:
    """Make a job new again: the transaction that inserted it may have been rolled back."""
    make_transient(job)
    for column in BY_ROW:
        values_of(job).pop(column, None)
