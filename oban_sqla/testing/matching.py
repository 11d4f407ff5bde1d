"""What a test expects of a job, and how far a job is from that."""

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
from ..models.references import InstanceReference, show
from ..workers.option import refuse_unknown

TOLERANCE = timedelta(seconds=1)
"""How far a job may be from the time that is expected."""


class Filters(TypedDict, total=False):
    """What may be expected of a job. What is left out may be anything."""

    worker: type | Callable[..., Any] | str
    """A worker class, a job function, or the name of a worker."""
    args: Mapping[str, Any]
    """Some of the arguments, at any depth. Values are compared with `==`, so that `mock.ANY` or
    `pytest.approx` may stand for one; a mapped instance is meant by its key."""
    meta: Mapping[str, Any]
    """The same for meta."""
    tags: Iterable[str]
    """Some of the tags."""
    queue: str
    priority: int
    max_attempts: int
    scheduled_at: datetime
    """When it is due, to a second."""
    schedule_in: timedelta | float
    """The same, from now."""


KNOWN = tuple(Filters.__annotations__)


class Expected:
    """What a test expects of a job."""

    def __init__(self, filters: Mapping[str, Any]) -> None:
        """`TypeError` or `ValueError` for what no job can be asked, or would never have."""
        refuse_unknown("a job to be expected", "field", filters, KNOWN)
        self._fields = {field: _check(field, value) for field, value in filters.items()}

    def __str__(self) -> str:
        return ", ".join(f"{field}={_show(value)}" for field, value in self._fields.items())

    def __bool__(self) -> bool:
        return bool(self._fields)

    def differences(self, job: Job) -> list[str]:
        """What is different about a job, in words; nothing if it is one of those expected."""
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
        # Now, and not when it was asked first: whoever waits for the job asks again.
        field, expected = "scheduled_at", client_now() + expected
    actual = getattr(job, field)
    same = abs(actual - expected) <= TOLERANCE if field == "scheduled_at" else actual == expected
    return [] if same else [f"{field} is {_show(actual)}"]


def _within(path: str, expected: Any, actual: Any) -> Iterable[str]:
    """Where `actual` lacks something of `expected`."""
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
    """References for instances, also in the lists that tuples become; asked anew for their keys."""
    if isinstance(expected, list | tuple):
        return [_as_stored(item) for item in expected]
    if isinstance(expected, dict) and not isinstance(expected, Reference):
        return {key: _as_stored(item) for key, item in expected.items()}
    if isinstance(inspect(expected, raiseerr=False), InstanceState):
        return InstanceReference(expected)
    return expected


def _is_equal(expected: Any, actual: Any) -> bool:
    """Whether they are equal, and a reference only to a reference, at any depth."""
    if isinstance(expected, list) and isinstance(actual, list):
        return len(expected) == len(actual) and all(map(_is_equal, expected, actual))
    if _is_object(expected) and _is_object(actual):
        return expected.keys() == actual.keys() and all(
            _is_equal(value, actual[key]) for key, value in expected.items()
        )
    if isinstance(expected, Mapping) and isinstance(actual, Mapping):
        # One of them is a reference, and equals a dict that looks alike.
        both = isinstance(expected, Reference) and isinstance(actual, Reference)
        return both and expected == actual
    return bool(expected == actual)


def _is_object(value: Any) -> bool:
    return isinstance(value, Mapping) and not isinstance(value, Reference)


def _show(value: object) -> str:
    if isinstance(value, Reference):
        return f"a reference to {show(value)}"
    return value.isoformat() if isinstance(value, datetime) else repr(value)
