"""Compare jobs with the fields that a test expects."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, TypedDict

from sqlalchemy import inspect
from sqlalchemy.orm import InstanceState

from ..clock import client_now
from ..config.worker_names import name_of
from ..models import Job, validation
from ..models.job import RULES
from ..models.notation import Reference
from ..models.references import InstanceReference, show_reference
from ..workers.option import refuse_unknown

TOLERANCE = timedelta(seconds=1)
"""The largest difference between an expected time and that of a job that matches."""


class Filters(TypedDict, total=False):
    """The fields that a test may expect of a job. A missing field matches any value."""

    worker: type | Callable[..., Any] | str
    """A worker class, a job function, or the name of a worker."""
    args: Mapping[str, Any]
    """Some of the arguments, at any depth. Values are compared with `==`, so `mock.ANY` and
    `pytest.approx` work. A mapped instance is compared by its key."""
    meta: Mapping[str, Any]
    """Some entries of meta, compared as `args`."""
    tags: Iterable[str]
    """Some of the tags."""
    queue: str
    priority: int
    max_attempts: int
    scheduled_at: datetime
    """When the job is due, within a second."""
    schedule_in: timedelta | float
    """How long from now the job is due, within a second: a `timedelta` or seconds."""


KNOWN = tuple(Filters.__annotations__)


class Expected:
    """What a test expects of a job."""

    def __init__(self, filters: Mapping[str, Any]) -> None:
        """`TypeError` or `ValueError` for an unknown field, or a value that no job can have."""
        refuse_unknown("a job to be expected", "field", filters, KNOWN)
        self._fields = {field: _check(field, value) for field, value in filters.items()}

    def __str__(self) -> str:
        return ", ".join(f"{field}={_show(value)}" for field, value in self._fields.items())

    def __bool__(self) -> bool:
        return bool(self._fields)

    def differences(self, job: Job) -> list[str]:
        """The differences of a job from the expected fields, in words; empty if the job matches."""
        found: list[str] = []
        for field, expected in self._fields.items():
            found += _differences(job, field, expected)
        return found


def _check(field: str, value: Any) -> Any:
    match field:
        case "worker":
            return validation.worker_name(name_of(value))
        case "args" | "meta":
            if not isinstance(value, Mapping):
                raise TypeError(f"{field} must be a mapping, not {validation.show(value)}")
            return value
        case "queue" | "tags" | "priority" | "max_attempts":
            return RULES[field](value)
        case "scheduled_at":
            return validation.instant(field, value)
        case "schedule_in":
            return validation.delay(field, value)
    return value


def _differences(job: Job, field: str, expected: Any) -> list[str]:
    if field in ("args", "meta"):
        return list(_within(field, expected, getattr(job, field)))
    if field == "tags":
        missing = [tag for tag in expected if tag not in job.tags]
        return [f"tags is {job.tags}, without {', '.join(missing)}"] if missing else []
    if field == "schedule_in":
        # Counted from now at each comparison, since a test with a timeout compares repeatedly.
        field, expected = "scheduled_at", client_now() + expected
    actual = getattr(job, field)
    same = abs(actual - expected) <= TOLERANCE if field == "scheduled_at" else actual == expected
    return [] if same else [f"{field} is {_show(actual)}"]


def _within(path: str, expected: Any, actual: Any) -> Iterable[str]:
    """The paths at which `actual` differs from `expected`."""
    expected = _as_stored(expected)
    if not (_is_object(expected) and _is_object(actual)):
        if not _is_equal(expected, actual):
            yield f"{path} is {_show(actual)}"
        return
    for key, value in expected.items():
        if key in actual:
            yield from _within(f"{path}[{key!r}]", value, actual[key])
        else:
            yield f"{path} has no {key!r}"


def _as_stored(expected: Any) -> Any:
    """A copy with references in place of instances, and lists in place of tuples."""
    if isinstance(expected, list | tuple):
        return [_as_stored(item) for item in expected]
    if isinstance(expected, dict) and not isinstance(expected, Reference):
        return {key: _as_stored(item) for key, item in expected.items()}
    if isinstance(inspect(expected, raiseerr=False), InstanceState):
        return InstanceReference(expected)
    return expected


def _is_equal(expected: Any, actual: Any) -> bool:
    """Whether two values are equal. At any depth, a reference equals only a reference."""
    if isinstance(expected, list) and isinstance(actual, list):
        return len(expected) == len(actual) and all(map(_is_equal, expected, actual))
    if _is_object(expected) and _is_object(actual):
        return expected.keys() == actual.keys() and all(
            _is_equal(value, actual[key]) for key, value in expected.items()
        )
    if isinstance(expected, Mapping) and isinstance(actual, Mapping):
        # A reference would equal a dict with the same items.
        both = isinstance(expected, Reference) and isinstance(actual, Reference)
        return both and expected == actual
    return bool(expected == actual)


def _is_object(value: Any) -> bool:
    return isinstance(value, Mapping) and not isinstance(value, Reference)


def _show(value: object) -> str:
    if isinstance(value, Reference):
        return f"a reference to {show_reference(value)}"
    return value.isoformat() if isinstance(value, datetime) else repr(value)
