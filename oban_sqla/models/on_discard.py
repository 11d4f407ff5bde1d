"""The entry in a job's meta that says which job is enqueued when the job is discarded."""

from collections.abc import Mapping
from typing import Any

ENTRY = "oban_sqla_on_discard"
"""The key of the entry: what the new job consists of, beside its arguments."""

ARGUMENT = "job_id"
"""The one argument of the new job: the id of the discarded job."""

FIELDS = ("worker", "queue", "max_attempts", "priority", "tags", "meta")


def entry(values: Mapping[str, Any]) -> dict[str, Any]:
    """The entry that enqueues a job with these values."""
    return {ENTRY: {field: values[field] for field in FIELDS}}
