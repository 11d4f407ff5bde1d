"""The deadline of a job: the time by which its first attempt must begin."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from . import validation

ENTRY = "oban_sqla_deadline"
"""The key of a job's own deadline in its meta."""

Deadline: TypeAlias = datetime | timedelta | float
"""An instant, or a `timedelta` or seconds after the job is due."""


def deadline_option(value: object) -> datetime | float:
    """Check an option `deadline`; returns an instant in UTC, or seconds."""
    if isinstance(value, datetime):
        return validation.instant("deadline", value)
    if not isinstance(value, timedelta | int | float):
        raise TypeError(
            f"deadline must be a datetime, a timedelta or seconds, not {validation.show(value)}"
        )
    seconds = validation.delay("deadline", value).total_seconds()
    if seconds <= 0:
        raise ValueError(f"deadline must be more than 0 seconds, not {validation.show(value)}")
    return seconds


def deadline_entry(deadline: datetime | float) -> dict[str, Any]:
    """The entry in a job's meta that stores its own deadline."""
    return {ENTRY: deadline.isoformat() if isinstance(deadline, datetime) else deadline}


def own_deadline(meta: object) -> datetime | float | None:
    """The deadline in a job's meta; `None` if there is none, or if its value is unknown JSON."""
    value = meta.get(ENTRY) if isinstance(meta, Mapping) else None
    if isinstance(value, int | float):
        return value
    if not isinstance(value, str):
        return None
    try:
        instant = datetime.fromisoformat(value)
    except ValueError:
        return None
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
