"""`JobFunction`: a function whose calls can be enqueued."""

import functools
import inspect
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
from . import annotations
from .backoff import jittery_clamped
from .declaration import JOB_OPTIONS, declared
from .option import Option, options_of, refuse_unknown
from .options import JobOptions, WorkerOptions
from .registry import register
from .sessions import check_session, for_sessions
from .with_options import WithOptions

P = ParamSpec("P")
R = TypeVar("R")

Backoff = Callable[[Job], float | timedelta]


class FunctionOptions(WorkerOptions, total=False):
    """The options of a worker that is a function: the keywords of `@job`."""

    backoff: Annotated[
        Backoff | None,
        Option("Returns the seconds, or a `timedelta`, until the next attempt of a failed job."),
    ]


FUNCTION_OPTIONS = options_of(FunctionOptions)

_OPTIONS = (*JOB_OPTIONS, "conn")
_POSITIONAL = inspect.Parameter.POSITIONAL_OR_KEYWORD
_VAR_KEYWORD = inspect.Parameter.VAR_KEYWORD


class JobFunction(Generic[P, R]):
    """What `@job()` makes of a function.

    Calling it calls the function. `new` and `enqueue` take the function's own arguments, and beside
    them the options of a job as keywords. With `options(...).new` and `options(...).enqueue` a type
    checker checks the arguments even so. The arguments are kept by name, as given: a default that
    changes later counts for jobs that wait. A session is not among them.

    An argument may be what its annotation says, beside JSON: a mapped instance, a `datetime`,
    `date`, `time`, `timedelta`, `UUID`, `Decimal`, `Enum`, dataclass or pydantic model, also within
    lists, dicts and dataclasses. It is stored as JSON, and arrives as what it was.
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
                f"{function.__qualname__} is no model, so it has no row to be locked: leave lock="
                " out"
            )
        functools.update_wrapper(self, function)
        self._function = function
        self._whole = inspect.signature(function)
        self._session = self._first() if session else None
        own = [p for name, p in self._whole.parameters.items() if name != self._session]
        self._signature = self._whole.replace(parameters=own)
        self._others = next((p.name for p in own if p.kind is _VAR_KEYWORD), None)
        self._refuse_collisions()
        self._refuse_sessions()
        self.__oban__ = declared(function, options, FUNCTION_OPTIONS)
        if self.__oban__.cron is not None:
            self._bind((), {})  # its jobs have no arguments
        takes_session = self._session is not None
        register(
            self.__oban__,
            lambda: self,
            function,
            self.__oban__.backoff,
            takes_session=takes_session,
        )

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._function(*args, **kwargs)

    def options(self, *, conn: Conn | None = None, **options: Unpack[JobOptions]) -> WithOptions[P]:
        """The function with options of its jobs, for `new` or `enqueue` with its arguments::

            await report.options(conn=session, schedule_in=60).enqueue("2026-11")

        A type checker checks such a call whole. It checks no argument of a call that mixes both,
        `report.enqueue("2026-11", conn=session)`.

        `TypeError` for an option that there is not; a wrong value is refused by `new`.
        """
        refuse_unknown(self.__oban__.name, "option", options, JOB_OPTIONS)
        return WithOptions(self.__oban__, self._bind, conn, options)

    # The type system can't add keywords to a function's own. These overloads accept any arguments
    # beside an option; options() is the form that is checked.
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
        """A job that calls the function with these arguments, not enqueued.

        `TypeError` if they do not fit the function; `ValueError` or `TypeError`, naming the field
        and the value, for input that no job may hold.
        """
        options = {key: kwargs.pop(key) for key in JOB_OPTIONS if key in kwargs}
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
        """Call the function with the arguments of a job, and a session if it takes one."""
        arguments = {
            name: self._convert(annotations.from_json, name, value)
            for name, value in job.args.items()
        }
        bound = inspect.BoundArguments(self._whole, {})
        if self._session is not None:
            bound.arguments[self._session] = session
        for parameter in self._signature.parameters.values():
            if parameter.kind is _VAR_KEYWORD:
                bound.arguments[parameter.name] = arguments
                arguments = {}
            elif parameter.name in arguments:
                bound.arguments[parameter.name] = arguments.pop(parameter.name)
        if arguments:
            raise TypeError(
                f"{self.__oban__.name}{self._signature} takes no argument {next(iter(arguments))!r}"
            )
        return self._function(*bound.args, **bound.kwargs)

    def backoff(self, job: Job) -> float | timedelta:
        """Seconds until the next attempt of a failed job."""
        backoff: Backoff | None = self.__oban__.backoff
        if backoff is not None:
            return backoff(job)
        return jittery_clamped(job.attempt, job.max_attempts)

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        parameters = self._signature.parameters
        others = self._others
        if others is None:
            refuse_unknown(self.__oban__.name, "argument", kwargs, (*parameters, *_OPTIONS))
        try:
            bound = self._signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"{self.__oban__.name}{self._signature}: {error}") from None
        further = bound.pop(others, {}) if others else {}
        # A call of f(a=1, /, **kwargs) may have an `a` among the others; a job keeps one `a`.
        if ambiguous := further.keys() & parameters.keys() - {others}:
            raise TypeError(
                f"{self.__oban__.name}{self._signature}: a job can't keep {min(ambiguous)!r}, since"
                " a parameter has the same name"
            )
        return {
            name: self._convert(annotations.to_json, name, value)
            for name, value in {**bound, **further}.items()
        }

    @functools.cached_property
    def _kinds(self) -> Mapping[str, Any]:
        # Only now: a name may be defined behind the function.
        return annotations.converted(self._function, self._signature)

    def _kind(self, name: str) -> Any:
        if name not in self._signature.parameters and self._others is not None:
            return self._kinds.get(self._others)
        return self._kinds.get(name)

    def _convert(self, convert: Callable[..., Any], name: str, value: object) -> Any:
        kind = self._kind(name)
        return value if kind is None else convert(self.__oban__.name, name, value, kind)

    def _first(self) -> str:
        first = next(iter(self._whole.parameters.values()), None)
        if first is None or first.kind is not _POSITIONAL:
            raise TypeError(
                f"{self._function.__qualname__}{self._whole} with session=True needs a first"
                " parameter for the session"
            )
        check_session(self._function.__qualname__, self._function, first.name)
        return first.name

    def _refuse_collisions(self) -> None:
        for option in _OPTIONS:
            if option in self._signature.parameters:
                raise ValueError(
                    f"{self._function.__qualname__} has a parameter {option!r}, which enqueue()"
                    " takes as an option of the job: rename it"
                )

    def _refuse_sessions(self) -> None:
        sessions = for_sessions(self._function)
        for parameter in self._signature.parameters:
            if parameter in sessions:
                raise TypeError(
                    f"{self._function.__qualname__} has a parameter {parameter!r} for a session,"
                    " which no job can hold: make it the first one, and say @job(session=True)"
                )


class SessionJobFunction(JobFunction[P, R]):
    """One whose first parameter is a session, as a type checker sees it.

    Called directly it takes one more than `new` and `enqueue` do: no subtype as to that alone.
    """

    if TYPE_CHECKING:

        def __call__(self, session: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:  # type: ignore[override]
            ...
