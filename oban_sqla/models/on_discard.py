"""The entry in a job's meta for the job that is enqueued when the first job is discarded."""

from collections.abc import Mapping
from typing import Any

ENTRY = "oban_sqla_on_discard"
"""The key of the entry, which has the columns of the new job except its arguments."""

ARGUMENT = "job_id"
"""The only argument of the new job: the id of the discarded job."""

FIELDS = ("worker", "queue", "max_attempts", "priority", "tags", "meta")


def on_discard_entry(values: Mapping[str, Any]) -> dict[str, Any]:
    """The entry that enqueues a job with these values."""
    return {ENTRY: {field: values[field] for field in FIELDS}}
