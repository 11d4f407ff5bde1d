"""`Option`: everything about one option of a worker or a job, beside its name and type."""

import difflib
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..models import validation


def unchecked(value: Any) -> Any:
    """Keep a value as it is given: what declares the worker checks it together with others."""
    return value


@dataclass(frozen=True, slots=True)
class Option:
    """Annotates the type of an option in a typed dict."""

    says: str
    """What the option does: one paragraph of Markdown, for the reference page."""
    check: Callable[[Any], Any] = unchecked
    """Returns the value to keep; raises `ValueError` or `TypeError` for a wrong one."""
    default: Any = None
    inherited: bool = True
    """Whether a subclass takes the value over from its base."""


def options_of(declared: type) -> Mapping[str, Option]:
    """The options that a typed dict declares, by name, in their order."""
    hints = typing.get_type_hints(declared, include_extras=True)
    return {name: _option(hint) for name, hint in hints.items()}


def types_of(declared: type) -> Mapping[str, Any]:
    """The types of the options that a typed dict declares, by name."""
    return typing.get_type_hints(declared)


def checked(given: Mapping[str, Any], known: Mapping[str, Option]) -> dict[str, Any]:
    """The values to keep of those given; `None` stands for an option that is not given."""
    return {name: known[name].check(one) for name, one in given.items() if one is not None}


def refuse_unknown(
    subject: str, kind: str, given: Iterable[str], known: Iterable[str], more: str = ""
) -> None:
    """`TypeError` for the first name that is not known; it suggests the closest known one."""
    for option in given:
        if option not in known:
            names = tuple(known)
            close = difflib.get_close_matches(option, names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(names)}{more}"
            raise TypeError(f"{subject} has no {kind} {option!r}; {hint}")


def flag(option: str) -> Callable[[object], bool]:
    """The check of an option that is `True` or `False`."""

    def check(value: object) -> bool:
        if not isinstance(value, bool):
            raise TypeError(f"{option} must be True or False, not {validation.show(value)}")
        return value

    return check


def _option(hint: Any) -> Option:
    option: Option = hint.__metadata__[0]
    return option
