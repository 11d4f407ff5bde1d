"""Convert the arguments of a job function to JSON and back, by its annotations."""

import inspect
import typing
from collections.abc import Callable, Mapping
from types import GenericAlias, NoneType, UnionType
from typing import Any

from ..models import json_types, validation
from .provided import Provided

_NUMBERS = (int, float, bool, NoneType)
_SINGLE = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.KEYWORD_ONLY,
)


def converted(function: Callable[..., Any], signature: inspect.Signature) -> Mapping[str, Any]:
    """The types of the parameters whose values need a conversion.

    Parameters whose type does not determine a conversion are left out, for example
    `UUID | Decimal`, and names that are only imported for type checkers.
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
    """The parameters that only take numbers, flags or `None`, with their annotations."""
    found: dict[str, str] = {}
    for name, parameter in signature.parameters.items():
        kind = _evaluated(function, parameter.annotation)
        is_union = typing.get_origin(kind) in (typing.Union, UnionType)
        members = typing.get_args(kind) if is_union else (kind,)
        if parameter.kind in _SINGLE and all(member in _NUMBERS for member in members):
            found[name] = inspect.formatannotation(kind)
    return found


def refuse_text(subject: str, arguments: Mapping[str, Any], numbers: Mapping[str, str]) -> None:
    """`TypeError` if a string is passed for a parameter that takes numbers or flags."""
    for name, kind in numbers.items():
        value = arguments.get(name)
        if isinstance(value, str):
            raise TypeError(f"{subject}: {name} must be {kind}, not {validation.show(value)}")


def to_json(subject: str, name: str, value: object, kind: Any) -> Any:
    """Convert the value of an argument to JSON, except mapped instances in it.

    `TypeError` if the value is not of the type.
    """
    try:
        plain = json_types.to_json(value, kind)
        # Refuse a value that could not be read when the job runs.
        json_types.from_json(plain, kind)
    except Exception as error:
        raise TypeError(
            f"{subject}: {name} must be {inspect.formatannotation(kind)}, not"
            f" {validation.show(value)} ({error})"
        ) from None
    return plain


def from_json(subject: str, name: str, value: object, kind: Any) -> Any:
    """Convert a stored argument to its type; `ValueError` if it is not of the type."""
    if value is None:
        return None  # a default, or an instance whose row is gone
    try:
        return json_types.from_json(value, kind)
    except Exception as error:
        raise ValueError(
            f"{subject}: {name} can't be read as {inspect.formatannotation(kind)}:"
            f" {validation.show(value)} ({error})"
        ) from error


def _evaluated(function: Callable[..., Any], annotation: Any) -> Any:
    if typing.get_origin(annotation) is typing.Annotated:
        kind, *marks = typing.get_args(annotation)
        return kind if any(isinstance(mark, Provided) for mark in marks) else annotation
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
