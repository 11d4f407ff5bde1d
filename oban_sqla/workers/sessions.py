"""Check the parameters with which workers ask for a session."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session


def check_session(subject: str, function: Callable[..., Any], parameter: str) -> None:
    """`TypeError` if an async function asks for a `Session`, or a sync one for `AsyncSession`."""
    asynchronous = inspect.iscoroutinefunction(function)
    right = AsyncSession if asynchronous else Session
    wrong = Session if asynchronous else AsyncSession
    annotated = _classes(function).get(parameter)
    if annotated is not None and issubclass(annotated, wrong):
        raise TypeError(
            f"{subject} is {'async' if asynchronous else 'not async'}, so its {parameter} is"
            f" {right.__name__}, not {annotated.__name__}"
        )


def for_sessions(function: Callable[..., Any]) -> set[str]:
    """The parameters that are annotated as `AsyncSession` or `Session`."""
    sessions = AsyncSession | Session
    return {name for name, cls in _classes(function).items() if issubclass(cls, sessions)}


def _classes(function: Callable[..., Any]) -> Mapping[str, type]:
    """The parameters that are annotated with a class."""
    try:
        annotations = inspect.get_annotations(function, eval_str=True)
    except Exception:
        return {}  # for example, a name is only imported for type checkers
    return {name: kind for name, kind in annotations.items() if inspect.isclass(kind)}
