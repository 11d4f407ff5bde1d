"""`retry_on`, `discard_on` and `cancel_on`: the class of an error decides the job's outcome."""

from typing import Literal, TypeAlias

from sqlalchemy.exc import SQLAlchemyError

from .declaration import Declaration
from .outcomes import RetryAfter

Verdict: TypeAlias = Literal["retry", "discard", "cancel"]

VERDICTS: tuple[Verdict, ...] = ("retry", "discard", "cancel")
"""All verdicts, from the mildest to the most severe."""


def verdict(declaration: Declaration, error: BaseException) -> Verdict:
    """Whether a job that failed with an error is retried, discarded or cancelled.

    The first listed class in the error's inheritance decides. If the class of an exception group is
    not listed, the mildest verdict on its members applies.
    """
    if isinstance(error, RetryAfter):
        return "retry"
    for cls in type(error).__mro__:
        for name in VERDICTS:
            if cls in _listed(declaration, name):
                return name
    if isinstance(error, BaseExceptionGroup):
        return min((verdict(declaration, one) for one in error.exceptions), key=VERDICTS.index)
    return "discard" if declaration.retry_on and _is_of_the_job(error) else "retry"


def check(declaration: Declaration) -> None:
    """`ValueError` if a class is listed for two verdicts."""
    listed: dict[type, Verdict] = {}
    for name in VERDICTS:
        for cls in _listed(declaration, name):
            if cls in listed:
                raise ValueError(
                    f"{declaration.origin} names {cls.__qualname__} in {listed[cls]}_on and"
                    f" {name}_on: keep one"
                )
            listed[cls] = name


def _is_of_the_job(error: BaseException) -> bool:
    """Whether the job caused the error, not the database, this library, or the process."""
    return isinstance(error, Exception) and not isinstance(error, SQLAlchemyError)


def _listed(declaration: Declaration, name: Verdict) -> tuple[type[BaseException], ...]:
    found: tuple[type[BaseException], ...] = getattr(declaration, f"{name}_on")
    return found
