"""The arguments of a job function as its annotations have them: stored as JSON, and back."""

import inspect
import typing
from collections.abc import Callable, Mapping
from types import GenericAlias, NoneType, UnionType
from typing import Any

from ..models import json_types, validation

_NUMBERS = (int, float, bool, NoneType)
_SINGLE = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.KEYWORD_ONLY,
)


def converted(function: Callable[..., Any], signature: inspect.Signature) -> Mapping[str, Any]:
    """The types of those parameters whose values are not JSON as they are.

    What no type tells how to convert is left as it is: `UUID | Decimal`, for one, and names that
    are imported for type checkers only.
    """
    kinds: dict[str, Any] = {}
    for name, parameter in signature.parameters.items():
        kind = _evaluated(function, parameter.annotation)
        if json_types.needed(kind) and json_types.possible(kind):
            # `*args` is annotated with the type of each argument.
            each = parameter.kind is parameter.VAR_POSITIONAL
            kinds[name] = GenericAlias(tuple, (kind, ...)) if each else kind
    return kinds


def numbers(function: Callable[..., Any], signature: inspect.Signature) -> Mapping[str, str]:
    """The parameters that are annotated as numbers or flags alone, with their annotations."""
    found: dict[str, str] = {}
    for name, parameter in signature.parameters.items():
        kind = _evaluated(function, parameter.annotation)
        is_union = typing.get_origin(kind) in (typing.Union, UnionType)
        members = typing.get_args(kind) if is_union else (kind,)
        if parameter.kind in _SINGLE and all(member in _NUMBERS for member in members):
            found[name] = inspect.formatannotation(kind)
    return found


def refuse_text(subject: str, arguments: Mapping[str, Any], numbers: Mapping[str, str]) -> None:
    """`TypeError` for a text where a number or a flag is annotated."""
    for name, kind in numbers.items():
        value = arguments.get(name)
        if isinstance(value, str):
            raise TypeError(f"{subject}: {name} must be {kind}, not {validation.show(value)}")


def to_json(subject: str, name: str, value: object, kind: Any) -> Any:
    """The value of an argument as JSON; mapped instances in it are left.

    `TypeError` if it is not of the type.
    """
    try:
        plain = json_types.to_json(value, kind)
        # What can't be read again is refused now, not when the job runs.
        json_types.from_json(plain, kind)
    except Exception as error:
        raise TypeError(
            f"{subject}: {name} must be {inspect.formatannotation(kind)}, not"
            f" {validation.show(value)} ({error})"
        ) from None
    return plain


def from_json(subject: str, name: str, value: object, kind: Any) -> Any:
    """The value of an argument that was stored; `ValueError` if it is not of the type."""
    if value is None:
        return None  # a default, or a row that is gone
    try:
        return json_types.from_json(value, kind)
    except Exception as error:
        raise ValueError(
            f"{subject}: {name} can't be read as {inspect.formatannotation(kind)}:"
            f" {validation.show(value)} ({error})"
        ) from error


def _evaluated(function: Callable[..., Any], annotation: Any) -> Any:
    if not isinstance(annotation, str):
        return annotation
    names = getattr(inspect.unwrap(function), "__globals__", {})
    try:
        return typing.get_type_hints(_Annotated(annotation), names)["it"]
    except Exception:
        return None


class _Annotated:
    def __init__(self, annotation: str) -> None:
        self.__annotations__ = {"it": annotation}
