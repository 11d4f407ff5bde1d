"""The values of a new job, which it has before its row is inserted."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from . import validation
from .state import JobState
from .unique import Unique, UniqueMeta

UNIQUE = "_unique"
"""The key in `values_of(job)` of a new job's `Unique`."""
AT_FIRST: Mapping[str, Any] = {"state": JobState.AVAILABLE, "attempt": 0}
"""The values of a new job that may run at once."""


def new_values(
    checked: Mapping[str, Any], scheduled_at: datetime | None, unique: Unique | None
) -> dict[str, Any]:
    """All values of a new job, from checked ones: with a state, and without attempts."""
    values: dict[str, Any] = {
        **AT_FIRST,
        "errors": [],
        "attempted_by": [],
        **checked,
    }
    if scheduled_at is not None:
        values["scheduled_at"] = validation.instant("scheduled_at", scheduled_at)
        if "state" not in checked:
            values["state"] = JobState.SCHEDULED
    if unique is not None:
        values[UNIQUE] = unique
        values["meta"] = UniqueMeta(values["meta"], unique)
    return values
