"""`WithOptions`: a job function together with options of its jobs."""

from collections.abc import Callable
from typing import Any, Generic, ParamSpec

from ..enqueue.enqueue import Conn, enqueue_by_name
from ..models import Job
from .declaration import Declaration
from .options import JobOptions

P = ParamSpec("P")


class WithOptions(Generic[P]):
    """What `options()` of a job function returns.

    `new` and `enqueue` take the arguments of the function and nothing else, so a type checker knows
    each of them. It may be kept and used many times.
    """

    def __init__(
        self,
        declaration: Declaration,
        bind: Callable[[tuple[Any, ...], dict[str, Any]], dict[str, Any]],
        conn: Conn | None,
        options: JobOptions,
    ) -> None:
        self._declaration = declaration
        self._bind = bind
        self._conn = conn
        self._options = options

    def new(self, *args: P.args, **kwargs: P.kwargs) -> Job:
        """A job that calls the function with these arguments, not enqueued.

        `TypeError` if a `conn` is among the options: `new` uses none. The other errors are those of
        `JobFunction.new`.
        """
        if self._conn is not None:
            raise TypeError(
                f"{self._declaration.name}: new() enqueues nothing, so it has no use for conn:"
                " call enqueue(), or leave conn out of options()"
            )
        return self._new(args, kwargs)

    async def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job:
        """Make a job that calls the function, and enqueue it as `Worker.enqueue` does."""
        job = self._new(args, kwargs)
        await enqueue_by_name(job, self._conn, self._declaration.oban)
        return job

    def _new(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Job:
        return self._declaration.new_job(self._bind(args, kwargs), self._options)
