"""Parameters of job functions whose values a feature provides when the job runs."""

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from sqlalchemy import Executable

from ..models import Job

Question = tuple[Executable, Mapping[str, Any]]
"""A statement and its parameters."""


class Provided:
    """Marks a parameter, as in `Annotated[int, Provided()]`. Features subclass it."""

    def question(self, job: Job) -> Question:
        """The statement that finds the value for a job. An error fails the attempt."""
        raise NotImplementedError

    def answer(self, job: Job, rows: Sequence[Any]) -> Any:
        """The value as JSON, from the rows of the statement."""
        raise NotImplementedError


def provided_parameters(
    function: Callable[..., Any], parameters: Mapping[str, inspect.Parameter]
) -> dict[str, Provided]:
    """The marked parameters of a function."""
    found = {}
    for name, parameter in parameters.items():
        annotation = parameter.annotation
        if isinstance(annotation, str):
            annotation = _evaluated(function, annotation)
        if typing.get_origin(annotation) is Annotated:
            for mark in typing.get_args(annotation)[1:]:
                if isinstance(mark, Provided):
                    found[name] = mark
    return found


def _evaluated(function: Callable[..., Any], annotation: str) -> Any:
    names = getattr(inspect.unwrap(function), "__globals__", {})

    class Hinted:
        __annotations__ = {"it": annotation}

    try:
        return typing.get_type_hints(Hinted, names, include_extras=True)["it"]
    except Exception:
        # For example, a name is defined later, or only for type checkers.
        return None
