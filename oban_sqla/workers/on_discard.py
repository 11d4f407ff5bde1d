"""The option `on_discard`: each discarded job of a worker enqueues a job of another worker."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

from ..models import Job, validation
from ..models.instrumentation import values_of
from ..models.new_values import UNIQUE
from ..models.on_discard import ARGUMENT, on_discard_entry


class DeclaredWorker(Protocol):
    """A worker: a class that inherits from `Worker`, or a function with `@job()`."""

    @property
    def __oban__(self) -> Any: ...


class DecoratedWorker(Protocol):
    """A worker: a class with `@worker()`."""

    @property
    def new(self) -> Callable[..., Job]: ...


AnyWorker: TypeAlias = DeclaredWorker | DecoratedWorker
"""A worker, as the value of an option."""


def on_discard_option(worker: object) -> Mapping[str, Any]:
    """Check the option `on_discard`; returns the entry for the meta of jobs."""
    name = getattr(worker, "__qualname__", validation.show(worker))
    new = getattr(worker, "new", None)
    if not hasattr(worker, "__oban__") or not callable(new):
        raise TypeError(f"on_discard must be a worker, a class or a @job() function, not {name}")
    given = {ARGUMENT: 0}
    try:
        job = new(given) if isinstance(worker, type) else new(**given)
    except TypeError as error:
        raise TypeError(
            f"on_discard={name} can't be enqueued with the one argument {ARGUMENT!r}: {error}"
        ) from None
    if UNIQUE in values_of(job):
        raise TypeError(f"on_discard={name} must not be unique: each discard enqueues a job")
    return on_discard_entry(values_of(job))
