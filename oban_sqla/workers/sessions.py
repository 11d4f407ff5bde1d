"""The session that a worker asks for, by a parameter."""

import inspect
from collections.abc import Callable
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session


def check_session(subject: str, function: Callable[..., Any], parameter: str) -> None:
    """`TypeError` if an async function asks for a `Session`, or a plain one for the other."""
    asynchronous = inspect.iscoroutinefunction(function)
    right = AsyncSession if asynchronous else Session
    wrong = Session if asynchronous else AsyncSession
    annotated = _annotation(function, parameter)
    if annotated is not None and issubclass(annotated, wrong):
        raise TypeError(
            f"{subject} is {'async' if asynchronous else 'not async'}, so its {parameter} is"
            f" {right.__name__}, not {annotated.__name__}"
        )


def asks_for_session(function: Callable[..., Any], parameter: str) -> bool:
    """Whether a parameter is annotated as a session, of either kind."""
    annotated = _annotation(function, parameter)
    return annotated is not None and issubclass(annotated, AsyncSession | Session)


def _annotation(function: Callable[..., Any], parameter: str) -> type | None:
    """The class that a parameter is annotated with, if it is one."""
    try:
        annotated = inspect.get_annotations(function, eval_str=True).get(parameter)
    except Exception:
        return None  # a name that is imported for type checkers only
    return annotated if inspect.isclass(annotated) else None
