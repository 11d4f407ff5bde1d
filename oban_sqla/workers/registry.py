"""The workers of this process by name. A row in the table never makes it import anything."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import UnknownWorkerError
from ..models import Job, validation
from ..models.json_types import is_mapped
from . import limits, on_error
from .declaration import Declaration
from .hooks import Hooks
from .model_worker import SELF
from .provided import Provided


@dataclass(frozen=True, slots=True)
class Registration:
    """How to run the jobs of one worker."""

    declaration: Declaration
    create: Callable[[], Any]
    """Creates an object with `process(job)` and `backoff(job)`, for one attempt."""
    asynchronous: bool
    """Whether `process` is a coroutine function; if not, it runs in a thread."""
    takes_session: bool = False
    """Whether `process` also takes a `session`."""
    has_timeout: bool = False
    """Whether the object also has `timeout(job)`."""
    hooks: Hooks = field(default_factory=Hooks)
    """The functions that run before and after `process`."""
    provided: Mapping[str, Provided] = field(default_factory=dict)
    """The parameters of a function whose values a feature provides when the job runs."""

    @property
    def is_model(self) -> bool:
        """Whether the worker is a model, whose rows process their jobs."""
        # Checked late, since a class may be mapped after its declaration.
        return is_mapped(self.create)

    def processor(self, job: Job) -> Any:
        """The object whose `process` runs a job: the loaded row of a model, or a new object."""
        return job.args[SELF] if self.is_model else self.create()

    @property
    def interruptible(self) -> bool:
        """Whether the cancellation of a running job cancels its task."""
        return bool(self.declaration.interruptible) and self.asynchronous


_registrations: dict[str, Registration] = {}


def register(
    declaration: Declaration,
    create: Callable[[], Any],
    process: Callable[..., Any],
    backoff: Callable[..., Any] | None,
    timeout: Callable[..., Any] | None = None,
    *,
    hooks: Hooks,
    takes_session: bool = False,
    provided: Mapping[str, Provided] | None = None,
) -> None:
    """Register a worker.

    `ValueError` if another worker has its name; `TypeError` if its code can't be run.
    """
    origin = declaration.origin
    if inspect.isgeneratorfunction(process) or inspect.isasyncgenfunction(process):
        raise TypeError(f"{origin} contains a yield, so a job would not run it")
    if backoff is not None and not callable(backoff):
        raise TypeError(
            f"the backoff of {origin} must be a function of the job that returns the seconds, not"
            f" {validation.show(backoff)}"
        )
    if inspect.iscoroutinefunction(backoff):
        raise TypeError(f"the backoff of {origin} is async; it has to return the seconds at once")
    on_error.check(declaration)
    limits.refuse_other_terms(declaration, declarations())
    names = (declaration.name, *declaration.aliases)
    for name in names:
        _refuse_taken(name, declaration)
    registration = Registration(
        declaration,
        create,
        inspect.iscoroutinefunction(process),
        takes_session=takes_session,
        has_timeout=timeout is not None,
        hooks=hooks,
        provided=provided or {},
    )
    _registrations.update(dict.fromkeys(names, registration))


def find(name: str) -> Registration | None:
    """The imported worker that has this name or alias; `None` if there is none."""
    return _registrations.get(name)


def resolve(name: str) -> Registration:
    """The imported worker that has this name or alias; `UnknownWorkerError` if there is none."""
    registration = _registrations.get(name)
    if registration is None:
        if "<locals>" in name:
            raise UnknownWorkerError(
                f"worker {name!r} is defined in a function, where no other process can find it:"
                " move it to the top of a module, or give it a name, name='...'"
            )
        module = name.rpartition(".")[0] or name
        raise UnknownWorkerError(
            f"worker {name!r} is not registered; import its module with"
            f" `oban-sqla start --import {module}`, or before Oban starts"
        )
    return registration


def declarations() -> list[Declaration]:
    """The declarations of all workers that this process has imported."""
    return [known.declaration for known in _workers()]


def with_session() -> list[Declaration]:
    """The declarations of async workers with a session, which take connections of the pool."""
    return [known.declaration for known in _workers() if known.takes_session and known.asynchronous]


def with_cron() -> list[Declaration]:
    """The declarations of the workers that have a cron entry."""
    return [known.declaration for known in _workers() if known.declaration.cron is not None]


def _workers() -> Iterator[Registration]:
    """Each worker once, without its aliases."""
    return (known for name, known in _registrations.items() if name == known.declaration.name)


def _refuse_taken(name: str, declaration: Declaration) -> None:
    known = _registrations.get(name)
    # The same code registers again if its module is reloaded, or a decorator recreates its class.
    if known is None or known.declaration.origin == declaration.origin:
        return
    taken = f"worker name {name!r} is taken by {known.declaration.origin}"
    if name == declaration.name:
        raise ValueError(f"{taken}; give {declaration.origin} another name with name='...'")
    raise ValueError(f"{taken}; remove it from the aliases of {declaration.origin}")
