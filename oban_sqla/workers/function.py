"""`JobFunction`: a function whose calls can be enqueued."""

import functools
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Generic,
    ParamSpec,
    TypeVar,
    Unpack,
    cast,
    overload,
)

from ..enqueue.enqueue import Conn, enqueue_by_name
from ..models import Job, Unique
from ..models.deadline import Deadline
from .backoff import jittery_clamped
from .binding import Binding
from .declaration import JOB_OPTIONS, declared
from .hooks import Hooks, function_hook
from .limits import check_arguments
from .option import Option, options_of, refuse_unknown
from .options import JobOptions, WorkerOptions
from .registry import register
from .with_options import WithOptions

P = ParamSpec("P")
R = TypeVar("R")
H = TypeVar("H", bound=Callable[..., Any])

Backoff = Callable[[Job], float | timedelta]


class FunctionOptions(WorkerOptions, total=False):
    """The options of a worker that is a function: the keywords of `@job`."""

    backoff: Annotated[
        Backoff | None,
        Option("Returns the seconds, or a `timedelta`, until the next attempt of a failed job."),
    ]


FUNCTION_OPTIONS = options_of(FunctionOptions)

_OPTIONS = (*JOB_OPTIONS, "conn")


class JobFunction(Generic[P, R]):
    """A function that `@job()` made a worker.

    Calling it calls the function. `new` and `enqueue` take the function's arguments, and the
    options of a job as keywords. With `options(...).new` and `options(...).enqueue`, type checkers
    check all arguments. A job stores the given arguments by name, without defaults: if a default
    changes later, the change applies to waiting jobs. A session is not an argument.

    An argument is JSON, or of the annotated type: a mapped instance, a `datetime`, `date`, `time`,
    `timedelta`, `UUID`, `Decimal`, `Enum`, dataclass or pydantic model, also within lists, dicts
    and dataclasses. It is stored as JSON, and passed to the function as a value of its type.
    """

    def __init__(
        self,
        function: Callable[P, R],
        *,
        session: bool = False,
        **options: Unpack[FunctionOptions],
    ) -> None:
        if "lock" in options:
            raise TypeError(
                f"{function.__qualname__} is not a model, so it has no row to lock: leave lock= out"
            )
        functools.update_wrapper(self, function)
        self._function = function
        self._binding = Binding(function, session=session)
        self._refuse_collisions()
        self._binding.refuse_sessions()
        self.__oban__ = declared(function, options, FUNCTION_OPTIONS)
        check_arguments(self.__oban__, self._binding.signature)
        if self.__oban__.cron is not None:
            self._bind((), {})  # its jobs have no arguments
        self._hooks = Hooks()
        self._takes_session = session
        register(
            self.__oban__,
            lambda: self,
            function,
            self.__oban__.backoff,
            hooks=self._hooks,
            takes_session=session,
            provided=self._binding.provided,
        )

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._function(*args, **kwargs)

    def options(self, *, conn: Conn | None = None, **options: Unpack[JobOptions]) -> WithOptions[P]:
        """Set options of jobs, and pass only the function's arguments to `new` or `enqueue`::

            await report.options(conn=session, schedule_in=60).enqueue("2026-11")

        A type checker checks all arguments of such a call. It checks none if a call mixes both, as
        in `report.enqueue("2026-11", conn=session)`.

        `TypeError` for an unknown option. `new` raises the errors for invalid values.
        """
        refuse_unknown(self.__oban__.name, "option", options, JOB_OPTIONS)
        return WithOptions(self.__oban__, self._bind, conn, options)

    # The type system can't add keywords to those of a function. So these overloads accept any
    # arguments beside an option. Type checkers check the arguments with options() only.
    @overload
    def new(self, *args: P.args, **kwargs: P.kwargs) -> Job: ...
    @overload
    def new(self, *args: Any, schedule_in: timedelta | float, **kwargs: Any) -> Job: ...
    @overload
    def new(self, *args: Any, scheduled_at: datetime, **kwargs: Any) -> Job: ...
    @overload
    def new(self, *args: Any, queue: str, **kwargs: Any) -> Job: ...
    @overload
    def new(self, *args: Any, priority: int, **kwargs: Any) -> Job: ...
    @overload
    def new(self, *args: Any, max_attempts: int, **kwargs: Any) -> Job: ...
    @overload
    def new(self, *args: Any, tags: Iterable[str], **kwargs: Any) -> Job: ...
    @overload
    def new(self, *args: Any, meta: Mapping[str, Any], **kwargs: Any) -> Job: ...
    @overload
    def new(self, *args: Any, deadline: Deadline, **kwargs: Any) -> Job: ...
    @overload
    def new(self, *args: Any, unique: Unique | bool, **kwargs: Any) -> Job: ...
    def new(self, *args: Any, **kwargs: Any) -> Job:
        """Make a job that calls the function with these arguments, without enqueueing it.

        `TypeError` if the arguments do not fit the function. Other invalid input raises a
        `ValueError` or `TypeError` that names the field and the value.
        """
        options = {key: kwargs.pop(key) for key in JOB_OPTIONS if key in kwargs} if kwargs else {}
        return self.__oban__.new_job(self._bind(args, kwargs), cast(JobOptions, options))

    @overload
    async def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job: ...
    @overload
    async def enqueue(self, *args: Any, conn: Conn | None, **kwargs: Any) -> Job: ...
    @overload
    async def enqueue(self, *args: Any, schedule_in: timedelta | float, **kwargs: Any) -> Job: ...
    @overload
    async def enqueue(self, *args: Any, scheduled_at: datetime, **kwargs: Any) -> Job: ...
    @overload
    async def enqueue(self, *args: Any, queue: str, **kwargs: Any) -> Job: ...
    @overload
    async def enqueue(self, *args: Any, priority: int, **kwargs: Any) -> Job: ...
    @overload
    async def enqueue(self, *args: Any, max_attempts: int, **kwargs: Any) -> Job: ...
    @overload
    async def enqueue(self, *args: Any, tags: Iterable[str], **kwargs: Any) -> Job: ...
    @overload
    async def enqueue(self, *args: Any, meta: Mapping[str, Any], **kwargs: Any) -> Job: ...
    @overload
    async def enqueue(self, *args: Any, deadline: Deadline, **kwargs: Any) -> Job: ...
    @overload
    async def enqueue(self, *args: Any, unique: Unique | bool, **kwargs: Any) -> Job: ...
    async def enqueue(self, *args: Any, **kwargs: Any) -> Job:
        """Make a job that calls the function, and enqueue it as `Worker.enqueue` does."""
        conn: Conn | None = kwargs.pop("conn", None)
        job = self.new(*args, **kwargs)
        await enqueue_by_name(job, conn, self.__oban__.oban)
        return job

    def process(self, job: Job, session: Any = None) -> R:
        """Call the function with the arguments of a job, and with the session if it takes one.

        `TypeError` if the arguments do not fit the function.
        """
        args: object = job.args
        # Another program may write any JSON to the row.
        if not isinstance(args, Mapping):
            raise TypeError(
                f"the args of job {job.id} are {args!r}, but {self.__oban__.name}"
                f"{self._binding.signature} takes its arguments by name: a JSON object is expected"
            )
        result: R = self._binding.call(self.__oban__.name, job.args, session)
        return result

    def backoff(self, job: Job) -> float | timedelta:
        """Seconds until the next attempt of a failed job."""
        backoff: Backoff | None = self.__oban__.backoff
        if backoff is not None:
            return backoff(job)
        return jittery_clamped(job.attempt, job.max_attempts)

    def before(self, function: H) -> H:
        """Decorate a function that runs before each attempt, like the method `before` of a class::

            @report.before
            def announce(job: Job) -> None: ...

        The function may have a parameter `session` if the worker takes a session. `TypeError` if
        the function can't be called with these arguments, or is the second one.
        """
        return self._hook("before", function)

    def after(self, function: H) -> H:
        """Decorate a function that runs when an attempt has returned, like `before`.

        The function may also have a parameter `result`.
        """
        return self._hook("after", function)

    def _hook(self, name: str, function: H) -> H:
        if getattr(self._hooks, name) is not None:
            raise TypeError(f"{self._function.__qualname__} has a function {name} already")
        session = self._takes_session
        hook = function_hook(name, function, self._function, takes_session=session)
        setattr(self._hooks, name, hook)
        return function

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        return self._binding.arguments(self.__oban__.name, args, kwargs, _OPTIONS)

    def _refuse_collisions(self) -> None:
        for option in _OPTIONS:
            if option in self._binding.signature.parameters:
                raise ValueError(
                    f"{self._function.__qualname__} has a parameter {option!r}, which enqueue()"
                    " takes as an option of the job: rename it"
                )


class SessionJobFunction(JobFunction[P, R]):
    """The type of a job function whose first parameter is a session, for type checkers.

    A direct call takes the session, and `new` and `enqueue` do not.
    """

    if TYPE_CHECKING:

        def __call__(self, session: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:  # type: ignore[override]
            ...
