"""Give inserted jobs the values of their rows."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import inspect
from sqlalchemy.orm import make_transient, make_transient_to_detached

from ..models import Job, validation
from ..models.instrumentation import values_of
from ..models.job import BY_ROW, UNSET


def fill(jobs: Sequence[Job], rows: Sequence[Sequence[Any]]) -> None:
    """Give jobs the id and `inserted_at` of their rows, and make them detached.

    A detached job that is added to a session is not inserted again.
    """
    if len(rows) != len(jobs):
        raise ValueError(f"execute() returned {len(rows)} rows for {len(jobs)} jobs")
    if not jobs:
        return
    # All rows of a statement have the same `inserted_at`.
    inserted_at = validation.instant("inserted_at", rows[0][1])
    for job, row in zip(jobs, rows, strict=True):
        values = values_of(job)
        if "id" in values and inspect(job).key is not None:
            # The job was inserted before, perhaps in a transaction that was rolled back. It is a
            # new row now.
            make_transient(job)
        values["id"] = row[0]
        values["inserted_at"] = inserted_at
        values.setdefault("scheduled_at", inserted_at)
        for column in UNSET:
            values.setdefault(column, None)
        make_transient_to_detached(job)


def make_new(job: Job) -> None:
    """Make a job new again: the transaction that inserted it may have been rolled back."""
    make_transient(job)
    for column in BY_ROW:
        values_of(job).pop(column, None)
