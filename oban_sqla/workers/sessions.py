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
    try:
        annotated = inspect.get_annotations(function, eval_str=True).get(parameter)
    except Exception:
        return  # a name that is imported for type checkers only
    if inspect.isclass(annotated) and issubclass(annotated, wrong):
        raise TypeError(
            f"{subject} is {'async' if asynchronous else 'not async'}, so its {parameter} is"
            f" {right.__name__}, not {annotated.__name__}"
        )
