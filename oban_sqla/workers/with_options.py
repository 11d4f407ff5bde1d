"""`WithOptions`: a job function together with options of its jobs."""

from collections.abc import Callable
from typing import Any, Generic, ParamSpec

from ..enqueue.enqueue import Conn, enqueue_by_name
from ..models import Job
from .declaration import Declaration
from .options import JobOptions

P = ParamSpec("P")


class WithOptions(Generic[P]):
    """A job function with options of its jobs, returned by `JobFunction.options()`.

    `new` and `enqueue` take only the arguments of the function, so a type checker can check them.
    The object may be used many times.
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
        """Make a job that calls the function with these arguments, without enqueueing it.

        `TypeError` if the options have a `conn`, which `new` does not use. Other errors are those
        of `JobFunction.new`.
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
