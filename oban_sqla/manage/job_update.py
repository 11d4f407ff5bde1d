"""Check changes of jobs: the fields and their new values."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from ..clock import client_now
from ..config.worker_names import name_of
from ..models import Job, validation
from ..models.job import RULES
from ..models.references import complete_arguments
from ..statements.update import FIELDS

CHANGEABLE = (*FIELDS, "schedule_in")

Changes: TypeAlias = Mapping[str, Any] | Callable[[Job], Mapping[str, Any]]
"""New values by field, or a function that returns them for a job. The fields are args, meta, tags,
worker, queue, priority, max_attempts, and scheduled_at or schedule_in."""


def check(changes: object) -> dict[str, Any]:
    """Check changes, and return the values to store.

    `TypeError` if the changes are no mapping, or have a field that can't be changed. Invalid values
    raise a `ValueError` or `TypeError` that names the field and the value.
    """
    if not isinstance(changes, Mapping):
        raise TypeError(f"changes must be a mapping of fields, not {validation.show(changes)}")
    for field in changes:
        if field not in CHANGEABLE:
            raise TypeError(
                f"a job has no field {validation.show(field)} that can be changed;"
                f" there are {', '.join(CHANGEABLE)}"
            )
    if "schedule_in" in changes and "scheduled_at" in changes:
        raise ValueError("schedule_in and scheduled_at exclude each other: give one")
    return dict(_check(field, value) for field, value in changes.items())


def _check(field: str, value: object) -> tuple[str, object]:
    match field:
        case "schedule_in":
            return "scheduled_at", validation.moment_after(field, client_now(), value)
        case "scheduled_at":
            return field, validation.instant(field, value)
        case "worker":
            return field, RULES[field](name_of(value))
        case "args":
            return field, complete_arguments(field, value)
    return field, RULES[field](value)
