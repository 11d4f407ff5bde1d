"""The deadline of a job: until when its first attempt has to begin."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from . import validation

ENTRY = "oban_sqla_deadline"
"""The key of a job's own deadline in its meta."""

Deadline: TypeAlias = datetime | timedelta | float
"""An instant, or how long after the job is due: a `timedelta` or seconds."""


def deadline_option(value: object) -> datetime | float:
    """The check of an option `deadline`: an instant in UTC, or seconds."""
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


def entry(deadline: datetime | float) -> dict[str, Any]:
    """The entry in a job's meta for a deadline of its own."""
    return {ENTRY: deadline.isoformat() if isinstance(deadline, datetime) else deadline}


def own_deadline(meta: object) -> datetime | float | None:
    """A job's own deadline, in its meta, where others may have written any JSON; `None` if none."""
    value = meta.get(ENTRY) if isinstance(meta, Mapping) else None
    if isinstance(value, int | float):
        return value
    try:
        instant = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
