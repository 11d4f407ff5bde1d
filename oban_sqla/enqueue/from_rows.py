"""Give inserted jobs the values of their rows."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.orm import make_transient
from sqlalchemy.orm.attributes import instance_state

from ..models import Job, validation
from ..models.instrumentation import become_detached, values_of
from ..models.job import BY_ROW, UNSET
from .collector import paused

_NOTHING: Mapping[str, Any] = dict.fromkeys(UNSET)


def fill_from(rows: Sequence[Sequence[Any]], jobs: Sequence[Job]) -> None:
    """`fill` jobs from the row that `statements.insert.insert` returns."""
    if len(rows) != 1:
        raise ValueError(f"execute() returned {len(rows)} rows instead of one")
    ids, inserted_at, *_ = rows[0]
    fill(jobs, ids, inserted_at)


def fill(jobs: Sequence[Job], ids: Sequence[int], inserted_at: object) -> None:
    """Give jobs the ids and the `inserted_at` of their rows, and make them detached.

    A detached job that is added to a session is not inserted again.
    """
    if len(ids) != len(jobs):
        raise ValueError(f"execute() returned {len(ids)} ids for {len(jobs)} jobs")
    now = validation.instant("inserted_at", inserted_at)
    with paused():
        _fill(jobs, ids, now)
        become_detached(Job, jobs, ids)


def _fill(jobs: Sequence[Job], ids: Sequence[int], now: datetime) -> None:
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
