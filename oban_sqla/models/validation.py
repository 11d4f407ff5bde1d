"""What a job may hold: every rule on its input, with the message that names field and value."""

import math
import reprlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

# Oban for Elixir checks the same length in its table; NOTIFY carries the name in 8000 bytes.
LONGEST_QUEUE = 127
LONGEST_WORKER = 255
PRIORITIES = range(10)
ATTEMPTS = range(1, 32768)
# PostgreSQL's numeric would take more digits than Python is willing to print.
LARGEST_INTEGER_BITS = 14_000


class _UnfitError(Exception):
    """A value that JSON can't hold; each container on the way out adds its key to the path."""

    def __init__(self, kind: type[Exception], reason: str) -> None:
        self.kind = kind
        self.reason = reason
        self.path = ""


def json_object(field: str, value: object) -> dict[str, Any]:
    """A deep, plain copy of a JSON object.

    Raises `TypeError` for what is no mapping, and `TypeError` or `ValueError` for anything inside
    that PostgreSQL's `jsonb` can't hold: the message gives the path to it.
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"{field} must be a mapping of strings to JSON values, not {_show(value)}")
    plain: dict[str, Any] = json_value(field, value)
    return plain


def json_value(field: str, value: object) -> Any:
    """A deep, plain copy of any JSON value; the errors are those of `json_object`."""
    try:
        return _plain(value)
    except _UnfitError as unfit:
        raise unfit.kind(f"{field}{unfit.path} {unfit.reason}") from None
    except RecursionError:
        raise ValueError(f"{field} is nested too deeply, or contains itself") from None


def queue_name(value: object) -> str:
    """A queue's name: text of 1 to 127 characters, not blank."""
    return _name("queue", value, LONGEST_QUEUE)


def worker_name(value: object) -> str:
    """A worker's name: text of 1 to 255 characters, not blank."""
    return _name("worker", value, LONGEST_WORKER)


def tag_list(value: object) -> list[str]:
    """Tags as Oban keeps them: trimmed, in lower case, each once, sorted."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise TypeError(f"tags must be a list of strings, not {_show(value)}")
    tags: set[str] = set()
    for tag in value:
        if not isinstance(tag, str):
            raise TypeError(f"tags must be strings; {_show(tag)} is a {type(tag).__name__}")
        _storable("tags", tag)
        tags.add(tag.strip().lower())
    return sorted(tags - {""})


def priority(value: object) -> int:
    """A priority: an integer from 0, which runs first, to 9."""
    return _integer("priority", value, PRIORITIES)


def max_attempts(value: object) -> int:
    """How often a job may be tried: an integer from 1 to 32767 (PostgreSQL's `smallint`)."""
    return _integer("max_attempts", value, ATTEMPTS)


def instant(field: str, value: object) -> datetime:
    """An aware datetime in UTC: aware ones are converted, naive ones are taken as UTC."""
    if not isinstance(value, datetime):
        raise TypeError(f"{field} must be a datetime, not {_show(value)}")
    if value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{field} {_show(value)} is outside the years 1 to 9999 in UTC") from None


def delay(field: str, value: object) -> timedelta:
    """A delay: a `timedelta`, or finite seconds; not negative."""
    if isinstance(value, timedelta):
        length = value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ValueError(f"{field} must be finite, not {value!r}")
        try:
            length = timedelta(seconds=value)
        except OverflowError:
            raise ValueError(f"{field} {_show(value)} is more seconds than a date holds") from None
    else:
        raise TypeError(f"{field} must be a timedelta or seconds, not {_show(value)}")
    if length < timedelta(0):
        raise ValueError(f"{field} must not be negative, got {_show(value)}")
    return length


def moment_after(field: str, start: datetime, value: object) -> datetime:
    """The instant that lies a valid delay after `start`; `ValueError` beyond the year 9999."""
    try:
        return start + delay(field, value)
    except OverflowError:
        raise ValueError(f"{field} {_show(value)} leads beyond the year 9999") from None


def _name(field: str, value: object, longest: int) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{field} must be a string, not {_show(value)}")
    if not value.strip():
        raise ValueError(f"{field} must not be blank, got {value!r}")
    if len(value) > longest:
        raise ValueError(
            f"{field} is {len(value)} characters long, at most {longest} fit: {_show(value)}"
        )
    _storable(field, value)
    return str.__str__(value)


def _integer(field: str, value: object, allowed: range) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{field} must be an integer, not {_show(value)}")
    if value not in allowed:
        raise ValueError(f"{field} must be from {allowed[0]} to {allowed[-1]}, got {value}")
    return int(value)


def _storable(field: str, text: str) -> None:
    try:
        _text(text)
    except _UnfitError as unfit:
        raise unfit.kind(f"{field} {unfit.reason}") from None


def _plain(value: object) -> Any:
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int):
        return _whole(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _UnfitError(ValueError, f"is {value!r}, which JSON has no word for")
        return float(value)
    if isinstance(value, Mapping):
        return _object(value)
    if isinstance(value, list | tuple):
        return _array(value)
    raise _UnfitError(
        TypeError,
        f"is a {type(value).__name__}, not JSON: {_show(value)};"
        " pass str, int, float, bool, None, lists and dicts of them",
    )


def _object(value: Mapping[Any, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise _UnfitError(TypeError, f"has the key {_show(key)}; the keys of JSON are strings")
        try:
            plain[_text(key)] = _plain(item)
        except _UnfitError as unfit:
            _locate(unfit, key)
    return plain


def _array(value: list[Any] | tuple[Any, ...]) -> list[Any]:
    plain: list[Any] = []
    for index, item in enumerate(value):
        try:
            plain.append(_plain(item))
        except _UnfitError as unfit:
            _locate(unfit, index)
    return plain


def _locate(unfit: _UnfitError, key: object) -> NoReturn:
    unfit.path = f"[{_show(key)}]{unfit.path}"
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
            ValueError, f"has a NUL character, which PostgreSQL can't store: {_show(value)}"
        )
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _UnfitError(
                ValueError, f"has a lone surrogate, which is not valid Unicode: {_show(value)}"
            ) from None
    return value if type(value) is str else str.__str__(value)


def _show(value: object) -> str:
    try:
        return reprlib.repr(value)
    except Exception:
        return f"<{type(value).__name__}>"
