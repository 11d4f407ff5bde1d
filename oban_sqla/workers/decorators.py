"""`@worker` for classes and `@job` for functions."""

from collections.abc import Callable, Mapping
from typing import (
    Any,
    Concatenate,
    Literal,
    Never,
    ParamSpec,
    Protocol,
    TypeVar,
    Unpack,
    overload,
)

from ..enqueue.enqueue import Conn
from ..models import Job, validation
from .function import FunctionOptions, JobFunction, SessionJobFunction
from .options import JobOptions
from .worker import ClassOptions, Worker, declare

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class WorkerClass(Protocol[T_co]):
    """A decorated class, as a type checker sees it.

    mypy ignores what a class decorator returns: under mypy, inherit from `Worker` instead.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> T_co: ...

    def new(self, args: Mapping[str, Any] | None = None, /, **options: Unpack[JobOptions]) -> Job:
        """As `Worker.new`."""
        ...

    async def enqueue(
        self,
        args: Mapping[str, Any] | None = None,
        /,
        *,
        conn: Conn | None = None,
        **options: Unpack[JobOptions],
    ) -> Job:
        """As `Worker.enqueue`."""
        ...


def worker(
    *misplaced: Never, **options: Unpack[ClassOptions]
) -> Callable[[type[T]], WorkerClass[T]]:
    """Make a class with a method `process(self, job)` a worker, as if it inherited from `Worker`.

    `TypeError` if it has no such method; `ValueError` or `TypeError` for options that no job may
    have, and `ValueError` for a name that is taken.
    """
    _refuse_bare("worker", misplaced)

    def decorate(cls: type[T]) -> WorkerClass[T]:
        if not isinstance(cls, type):
            raise TypeError(f"@worker() is for classes; make {_name(cls)} a job with @job()")
        if not hasattr(cls, "process"):
            raise TypeError(f"{cls.__qualname__} has no method process(self, job)")
        for method in ("new", "enqueue", "backoff"):
            if not hasattr(cls, method):
                setattr(cls, method, vars(Worker)[method])
        declare(cls, options)
        return cls  # type: ignore[return-value]

    return decorate


@overload
def job(
    *, session: Literal[False] = False, **options: Unpack[FunctionOptions]
) -> Callable[[Callable[P, R]], JobFunction[P, R]]: ...
@overload
def job(
    *, session: Literal[True], **options: Unpack[FunctionOptions]
) -> Callable[[Callable[Concatenate[Any, P], R]], SessionJobFunction[P, R]]: ...
def job(*misplaced: Never, session: bool = False, **options: Unpack[FunctionOptions]) -> Any:
    """Make a function a worker: `function.enqueue(...)` takes its own arguments.

    The function may be sync, and then runs in a thread, or async. Its result counts as that of
    `Worker.process`. With `session=True` its first parameter is no argument of the job: it is given
    an `AsyncSession`, or a `Session` if it is not async, as `Worker.process` is.

    `ValueError` if a parameter has the name of a job's option, so that a call would be ambiguous;
    `ValueError` or `TypeError` for options that no job may have.
    """
    _refuse_bare("job", misplaced)

    def decorate(function: Callable[..., Any], /) -> Any:
        if isinstance(function, type):
            raise TypeError(
                f"@job() is for functions; make {_name(function)} a worker with @worker(), or"
                " inherit from Worker"
            )
        return JobFunction(function, session=session, **options)

    return decorate


def _refuse_bare(decorator: str, misplaced: tuple[object, ...]) -> None:
    if misplaced:
        raise TypeError(
            f"write @{decorator}() with parentheses above {_name(misplaced[0])}; they take the"
            " options by name"
        )


def _name(decorated: object) -> str:
    return getattr(decorated, "__qualname__", None) or validation.show(decorated)
