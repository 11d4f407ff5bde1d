"""`Rule`: the check and the default of a setting."""

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from .values import LARGEST_COUNT, is_count, is_number

T = TypeVar("T", bound=Callable[..., Any])

Complain: TypeAlias = Callable[[str], None]

Check: TypeAlias = Callable[[str, Any, Complain], Any]
"""Takes the name and value of a setting, and a callback for mistakes. Returns the checked value."""


@dataclass(frozen=True, slots=True)
class Rule:
    """The check and the default of a setting, as an annotation of its type in a typed dict."""

    check: Check
    default: Any = None


def rules_of(declared: type) -> Mapping[str, Rule]:
    """The rules that a typed dict declares, by the names of the settings."""
    hints = typing.get_type_hints(declared, include_extras=True)
    return {name: hint.__metadata__[0] for name, hint in hints.items()}


def shows(declared: type) -> Callable[[T], T]:
    """Decorate a function that takes `**settings`, so that `help()` and IDEs show each setting."""

    def show(function: T) -> T:
        shown = inspect.signature(function)
        parameters = list(shown.parameters.values())[:-1]
        types = typing.get_type_hints(declared)
        parameters += [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=rule.default, annotation=types[name]
            )
            for name, rule in rules_of(declared).items()
        ]
        vars(function)["__signature__"] = shown.replace(parameters=parameters)
        return function

    return show


def demand(holds: Callable[[Any], bool], wanted: str) -> Check:
    """A check that demands a condition; `wanted` describes valid values."""

    def check(key: str, value: Any, complain: Complain) -> Any:
        if not holds(value):
            complain(f"{key} must be {wanted}, not {value!r}")
        return value

    return check


def parsed(parse: Callable[[Any], object]) -> Check:
    """A check that demands that `parse` raises no `ValueError` for the value."""

    def check(key: str, value: Any, complain: Complain) -> Any:
        try:
            parse(value)
        except ValueError as error:
            complain(str(error))
        return value

    return check


def unless_none(rule: Check) -> Check:
    """A check that allows `None`, and otherwise applies `rule`."""
    return lambda key, value, complain: None if value is None else rule(key, value, complain)


def seconds(least: float, most: float) -> Check:
    """A check that demands a number of seconds from `least` to `most`."""
    return demand(
        lambda value: is_number(value) and least <= value <= most,
        f"seconds from {least:g} to {most:g}",
    )


at_least_zero = demand(lambda value: is_number(value) and value >= 0, "seconds, 0 or more")

more_than_zero = demand(lambda value: is_number(value) and value > 0, "seconds, more than 0")

count = demand(is_count, f"an integer from 1 to {LARGEST_COUNT}")
