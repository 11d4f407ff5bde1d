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
    """The type of a decorated class, for type checkers.

    mypy ignores the return type of class decorators: with mypy, inherit from `Worker` instead.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> T_co: ...

    def new(self, args: Mapping[str, Any] | None = None, /, **options: Unpack[JobOptions]) -> Job:
        """Make a job, as `Worker.new` does."""
        ...

    async def enqueue(
        self,
        args: Mapping[str, Any] | None = None,
        /,
        *,
        conn: Conn | None = None,
        **options: Unpack[JobOptions],
    ) -> Job:
        """Enqueue a job, as `Worker.enqueue` does."""
        ...


def worker(
    *misplaced: Never, **options: Unpack[ClassOptions]
) -> Callable[[type[T]], WorkerClass[T]]:
    """Make a class with a method `process(self, job)` a worker, as if it inherited from `Worker`.

    `TypeError` if the class has no such method. `ValueError` or `TypeError` for invalid options.
    `ValueError` if another worker has the name.
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
    """Make a function a worker: `function.enqueue(...)` takes the arguments of the function.

    The function is async, or it is sync and runs in a thread. Its result has the same meaning as
    that of `Worker.process`. With `session=True`, the first parameter gets a session instead of an
    argument of the job: an `AsyncSession`, or a `Session` if the function is sync.

    `ValueError` if a parameter has the name of an option, since calls would be ambiguous.
    `ValueError` or `TypeError` for invalid options.
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
