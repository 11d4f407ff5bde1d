"""The workers this process knows, by name. A row in the table never makes it import anything."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import UnknownWorkerError


@dataclass(frozen=True, slots=True)
class Registration:
    """How to run the jobs of one worker."""

    name: str
    origin: str
    """`module.qualname` of the code, whatever its name."""
    create: Callable[[], Any]
    """Makes an object with `process(job)` and `backoff(job)`, for one attempt."""
    asynchronous: bool
    """Whether `process` is a coroutine function; if not, it runs in a thread."""


_registrations: dict[str, Registration] = {}


def register(registration: Registration) -> None:
    """Make a worker known; `ValueError` if other code has its name already."""
    known = _registrations.get(registration.name)
    # The same code again is a reloaded module, or a class that a decorator made anew.
    if known is not None and known.origin != registration.origin:
        raise ValueError(
            f"worker name {registration.name!r} is taken by {known.origin};"
            f" give {registration.origin} another one with name='...'"
        )
    _registrations[registration.name] = registration


def resolve(name: str) -> Registration:
    """The worker of that name; `UnknownWorkerError` if none was imported."""
    registration = _registrations.get(name)
    if registration is None:
        module = name.rpartition(".")[0] or name
        raise UnknownWorkerError(
            f"worker {name!r} is not registered; import its module with"
            f" `oban-sqla start --import {module}`, or before Oban starts"
        )
    return registration
