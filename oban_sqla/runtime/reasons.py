"""The seam for features that know why a suspended job waits, such as workflows."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from .following import Fetches

Reason: TypeAlias = Callable[[Fetches, int], Awaitable[str | None]]
"""A function that says in a sentence why the job with an id waits; `None` if it can't say."""

_reasons: list[Reason] = []


def register(reason: Reason) -> None:
    """Register a feature that suspends jobs."""
    if reason not in _reasons:
        _reasons.append(reason)


async def reason_of(database: Fetches, id: int) -> str | None:
    """Why a suspended job waits, in a sentence; `None` if no feature has suspended it."""
    for reason in _reasons:
        sentence = await reason(database, id)
        if sentence is not None:
            return sentence
    return None
