"""The checks of a job's input. Each message names the field and the value."""

import math
import reprlib
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn, TypeAlias

from ..config.queues import LONGEST_NAME
from .state import JobState

PRIORITIES = range(10)
ATTEMPTS = range(1, 32768)
# PostgreSQL reads some thousand levels. Python reads only some hundred, if a worker calls the
# parser deep in its own stack.
DEEPEST = 256
# PostgreSQL's numeric takes more digits than Python prints by default.
LARGEST_INTEGER_BITS = 14_000

_SHORT = 1 << 63

_CONTAINERS = frozenset((dict, list, tuple))

_reprs = reprlib.Repr()
_reprs.maxother = 100  # a datetime with its time zone


Refer: TypeAlias = Callable[[object], Any]
"""Returns the replacement of a value that is not JSON, or `None` if there is none."""


class _UnfitError(Exception):
    """A value that JSON can't hold. Each container around it adds its key to the path."""

    def __init__(self, kind: type[Exception], reason: str) -> None:
        self.kind = kind
        self.reason = reason
        self.path = ""


def json_object(field: str, value: object, refer: Refer | None = None) -> dict[str, Any]:
    """A deep, plain copy of a JSON object, in which `refer` may replace values that are not JSON.

    Raises `TypeError` if the value is not a mapping. Raises `TypeError` or `ValueError` with the
    path to a value inside that PostgreSQL's `jsonb` can't hold.
    """
    if type(value) is not dict and not isinstance(value, Mapping):
        raise TypeError(f"{field} must be a mapping of strings to JSON values, not {show(value)}")
    plain: dict[str, Any] = json_value(field, value, refer)
    return plain


def flat_object(value: object) -> dict[str, Any] | None:
    """A copy of a dict of short values, as most arguments are; `None` for any other value.

    It saves two of the four microseconds that making a job takes.
    """
    if type(value) is not dict:
        return None
    for key, item in value.items():
        if type(key) is not str or not key.isascii() or "\x00" in key:
            return None
        kind = type(item)
        if kind is str:
            if not item.isascii() or "\x00" in item:
                return None
        elif kind is int:
            if not -_SHORT < item < _SHORT:
                return None
        elif kind is not bool and item is not None:
            return None
    return value.copy()


def json_value(field: str, value: object, refer: Refer | None = None) -> Any:
    """A deep, plain copy of any JSON value. The errors are those of `json_object`."""
    try:
        return _plain(value, 0, refer)
    except _UnfitError as unfit:
        raise unfit.kind(f"{field}{unfit.path} {unfit.reason}") from None
    except RecursionError:
        raise ValueError(
            f"{field} is nested more than {DEEPEST} levels deep, or contains itself: {show(value)}"
        ) from None


def queue_name(value: object) -> str:
    """A queue's name: text of 1 to 127 characters, not blank."""
    return _name("queue", value)


def worker_name(value: object) -> str:
    """A worker's name: text of 1 to 127 characters, not blank."""
    return _name("worker", value)


def tag_list(value: object) -> list[str]:
    """Tags as Oban stores them: trimmed, in lower case, each once, sorted."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise TypeError(f"tags must be a list of strings, not {show(value)}")
    tags: set[str] = set()
    for tag in value:
        if not isinstance(tag, str):
            raise TypeError(f"tags must be strings; {show(tag)} is a {type(tag).__name__}")
        _storable("tags", tag)
        tags.add(tag.strip().lower())
    return sorted(tags - {""})


def priority(value: object) -> int:
    """A priority: an integer from 0 (runs first) to 9."""
    return _integer("priority", value, PRIORITIES)


def max_attempts(value: object) -> int:
    """How often a job may be tried: an integer from 1 to 32767 (PostgreSQL's `smallint`)."""
    return _integer("max_attempts", value, ATTEMPTS)


def state(value: object) -> JobState:
    """A state of a job, or its name."""
    if not isinstance(value, str):
        raise TypeError(f"state must be a JobState, not {show(value)}")
    try:
        return JobState(value)
    except ValueError:
        raise ValueError(f"state must be one of {', '.join(JobState)}, not {show(value)}") from None


def instant(field: str, value: object) -> datetime:
    """An aware datetime in UTC. Aware datetimes are converted, naive ones are taken as UTC."""
    if not isinstance(value, datetime):
        raise TypeError(f"{field} must be a datetime, not {show(value)}")
    if value.utcoffset() is None:
        return value.replace(tzinfo=UTC)
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{field} {show(value)} is outside the years 1 to 9999 in UTC") from None


def delay(field: str, value: object) -> timedelta:
    """A delay: a `timedelta`, or finite seconds; not negative."""
    if isinstance(value, timedelta):
        length = value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{field} must be finite, not {value!r}")
        if value < 0:
            raise ValueError(f"{field} must not be negative, got {show(value)}")
        try:
            length = timedelta(seconds=value)
        except OverflowError:
            raise ValueError(f"{field} {show(value)} is more seconds than a date holds") from None
    else:
        raise TypeError(f"{field} must be a timedelta or seconds, not {show(value)}")
    if length < timedelta(0):
        raise ValueError(f"{field} must not be negative, got {show(value)}")
    return length


def moment_after(field: str, start: datetime, value: object) -> datetime:
    """The instant at a valid delay after `start`; `ValueError` beyond the year 9999."""
    try:
        return start + delay(field, value)
    except OverflowError:
        raise ValueError(f"{field} {show(value)} leads beyond the year 9999") from None


def show(value: object) -> str:
    """A short text of a value for a message. Never raises, whatever its `repr` does."""
    try:
        return _reprs.repr(value)
    except Exception:
        return f"<{type(value).__name__}>"


def _name(field: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{field} must be a string, not {show(value)}")
    if not value.strip():
        raise ValueError(f"{field} must not be blank, got {show(value)}")
    if len(value) > LONGEST_NAME:
        raise ValueError(
            f"{field} is {len(value)} characters long, at most {LONGEST_NAME} fit: {show(value)}"
        )
    _storable(field, value)
    return str.__str__(value)


def _integer(field: str, value: object, allowed: range) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{field} must be an integer, not {show(value)}")
    if value not in allowed:
        raise ValueError(f"{field} must be from {allowed[0]} to {allowed[-1]}, got {show(value)}")
    return int(value)


def _storable(field: str, text: str) -> None:
    try:
        _text(text)
    except _UnfitError as unfit:
        raise unfit.kind(f"{field} {unfit.reason}") from None


def _plain(value: object, depth: int, refer: Refer | None) -> Any:
    # Fast path: almost all values have exactly these types, and the checks below are slower.
    kind = type(value)
    if kind is str:
        return _text(value)  # type: ignore[arg-type]
    if kind is dict:
        return _object(value, depth + 1, refer)  # type: ignore[arg-type]
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int):
        return _whole(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _UnfitError(ValueError, f"is {value!r}, which JSON can't express")
        return float(value)
    if refer is not None and type(value) not in _CONTAINERS:
        reference = refer(value)
        if reference is not None:
            return reference
    if isinstance(value, Mapping):
        return _object(value, depth + 1, refer)
    if isinstance(value, list | tuple):
        return _array(value, depth + 1, refer)
    raise _UnfitError(
        TypeError,
        f"is a {type(value).__name__}, not JSON: {show(value)};"
        " pass str, int, float, bool, None, lists and dicts of them",
    )


def _object(value: Mapping[Any, Any], depth: int, refer: Refer | None) -> dict[str, Any]:
    _limit(depth)
    plain: dict[str, Any] = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise _UnfitError(TypeError, f"has the key {show(key)}; the keys of JSON are strings")
        try:
            plain[_text(key)] = _plain(item, depth, refer)
        except _UnfitError as unfit:
            _locate(unfit, key)
    return plain


def _array(value: list[Any] | tuple[Any, ...], depth: int, refer: Refer | None) -> list[Any]:
    _limit(depth)
    plain: list[Any] = []
    for index, item in enumerate(value):
        try:
            plain.append(_plain(item, depth, refer))
        except _UnfitError as unfit:
            _locate(unfit, index)
    return plain


def _limit(depth: int) -> None:
    if depth > DEEPEST:
        # An _UnfitError would build a path of 256 keys, which helps nobody.
        raise RecursionError


def _locate(unfit: _UnfitError, key: object) -> NoReturn:
    unfit.path = f"[{show(key)}]{unfit.path}"
    raise unfit


def _whole(value: int) -> int:
    if value.bit_length() > LARGEST_INTEGER_BITS:
        raise _UnfitError(
            ValueError, f"is an integer of {value.bit_length()} bits, too large to store"
        )
    return int(value)


def _text(value: str) -> str:
    if "\x00" in value:
        raise _UnfitError(
            ValueError, f"has a NUL character, which PostgreSQL can't store: {show(value)}"
        )
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _UnfitError(
                ValueError, f"has a lone surrogate, which is not valid Unicode: {show(value)}"
            ) from None
    return value if type(value) is str else str.__str__(value)
