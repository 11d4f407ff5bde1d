"""`Option`: the description, check and default of an option of workers or jobs."""

import difflib
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..models import validation


def unchecked(value: Any) -> Any:
    """Keep a value unchecked: the declaration of the worker checks it together with others."""
    return value


@dataclass(frozen=True, slots=True)
class Option:
    """An annotation of the type of an option in a typed dict."""

    says: str
    """The description for the reference page: one paragraph of Markdown."""
    check: Callable[[Any], Any] = unchecked
    """Returns the value to keep; raises `ValueError` or `TypeError` if it is invalid."""
    default: Any = None
    inherited: bool = True
    """Whether a subclass inherits the value from its base."""


def options_of(declared: type) -> Mapping[str, Option]:
    """The options that a typed dict declares, by name, in order."""
    hints = typing.get_type_hints(declared, include_extras=True)
    return {name: _option(hint) for name, hint in hints.items()}


def types_of(declared: type) -> Mapping[str, Any]:
    """The types of the options that a typed dict declares, by name."""
    return typing.get_type_hints(declared)


def checked(given: Mapping[str, Any], known: Mapping[str, Option]) -> dict[str, Any]:
    """Check the given options. An option that is `None` counts as not given."""
    return {name: known[name].check(one) for name, one in given.items() if one is not None}


def refuse_unknown(
    subject: str, kind: str, given: Iterable[str], known: Iterable[str], more: str = ""
) -> None:
    """`TypeError` for the first unknown name. The message suggests the closest known name."""
    for option in given:
        if option not in known:
            names = tuple(known)
            close = difflib.get_close_matches(option, names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(names)}{more}"
            raise TypeError(f"{subject} has no {kind} {option!r}; {hint}")


def flag(option: str) -> Callable[[object], bool]:
    """Make the check of an option that is `True` or `False`."""

    def check(value: object) -> bool:
        if not isinstance(value, bool):
            raise TypeError(f"{option} must be True or False, not {validation.show(value)}")
        return value

    return check


def _option(hint: Any) -> Option:
    option: Option = hint.__metadata__[0]
    return option
