"""Check options of a worker that list classes of errors."""

from collections.abc import Callable, Iterable
from typing import TypeAlias

from ..models import validation

ErrorClasses: TypeAlias = type[BaseException] | Iterable[type[BaseException]]
"""A class of errors, or several."""


def error_classes(option: str) -> Callable[[object], tuple[type[BaseException], ...]]:
    """Make the check of an option that lists classes of errors."""

    def check(value: object) -> tuple[type[BaseException], ...]:
        given = (value,) if isinstance(value, type) or not isinstance(value, Iterable) else value
        classes: list[type[BaseException]] = []
        for one in given:
            if not isinstance(one, type) or not issubclass(one, BaseException):
                raise TypeError(
                    f"{option} must be a class of exceptions, or several, not"
                    f" {validation.show(one)}"
                )
            classes.append(one)
        return tuple(classes)

    return check
