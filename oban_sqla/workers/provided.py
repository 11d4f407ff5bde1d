"""Parameters of job functions whose values are not given, but found when the job runs."""

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from sqlalchemy import Executable

from ..models import Job

Question = tuple[Executable, Mapping[str, Any]]
"""A statement and its parameters."""


class Provided:
    """Marks such a parameter: `Annotated[int, Provided()]`. A feature says what it stands for."""

    def question(self, job: Job) -> Question:
        """What finds the value for a job; an error fails its attempt."""
        raise NotImplementedError

    def answer(self, job: Job, rows: Sequence[Any]) -> Any:
        """The value as JSON, of the rows that the question finds."""
        raise NotImplementedError


def provided_parameters(
    function: Callable[..., Any], parameters: Mapping[str, inspect.Parameter]
) -> dict[str, Provided]:
    """The parameters that are marked."""
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
        # A name that is defined later, or for type checkers only.
        return None
