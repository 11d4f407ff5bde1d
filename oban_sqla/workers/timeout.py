"""Check the option `timeout`: how long an attempt may take."""

import inspect
from collections.abc import Callable
from datetime import timedelta
from typing import TypeAlias

from ..models import Job, validation

Timeout: TypeAlias = float | timedelta | Callable[[Job], float | timedelta | None]
"""Seconds or a `timedelta`, or a function that returns either for a job; `None` for no limit."""


def timeout_seconds(value: object, field: str = "timeout") -> float:
    """The seconds of a timeout; `TypeError` or `ValueError` for an invalid value."""
    seconds = validation.delay(field, value).total_seconds()
    if seconds <= 0:
        raise ValueError(f"{field} must be more than 0 seconds, not {validation.show(value)}")
    return seconds


def timeout_option(value: object) -> Timeout:
    """Check the option `timeout`."""
    if callable(value) and not isinstance(value, type):
        check_timeout("the worker", value, object())
        return value
    return timeout_seconds(value)


def check_timeout(subject: str, function: Callable[..., object], *takes: object) -> None:
    """`TypeError` if a function is async, or can't be called with `takes`."""
    if inspect.iscoroutinefunction(function):
        raise TypeError(f"the timeout of {subject} is async; it has to return the seconds at once")
    try:
        signature = inspect.signature(function)
    except ValueError:
        return  # some builtins have no signature
    try:
        signature.bind(*takes)
    except TypeError:
        raise TypeError(f"the timeout{signature} of {subject} can't be called with a job") from None
