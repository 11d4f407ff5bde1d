"""The hooks `before` and `after` of a worker, which run around `process` in its transaction."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from inspect import isawaitable
from operator import attrgetter
from types import MethodType
from typing import Any

from ..models import Job
from .sessions import check_session

KEYWORDS = {"before": ("session",), "after": ("result", "session")}
"""The parameters that each hook may have beside the job, by name."""


@dataclass(frozen=True, slots=True)
class Hook:
    """A method or function that runs before or after `process`."""

    bound: Callable[[Any], Callable[..., Any]]
    """Returns the function to call for a worker object."""
    takes: tuple[str, ...]
    """The parameters of the function beside the job: `session`, `result`, both or none."""

    def __call__(self, worker: Any, job: Job, given: Mapping[str, Any]) -> Any:
        return self.bound(worker)(job, **{name: given[name] for name in self.takes})


@dataclass(slots=True)
class Hooks:
    """The hooks of a worker."""

    before: Hook | None = None
    after: Hook | None = None

    def process(self, worker: Any, job: Job, **session: Any) -> Any:
        """Process a job with its hooks. Returns an awaitable if one of the functions is async.

        If `before` returns a value other than `None`, that value is the result.
        """
        if self.before is None and self.after is None:
            return worker.process(job, **session)
        found = None if self.before is None else self.before(worker, job, session)
        if isawaitable(found):
            return self._process_later(found, worker, job, session)
        return self._process(found, worker, job, session)

    async def _process_later(
        self, before: Awaitable[Any], worker: Any, job: Job, session: Mapping[str, Any]
    ) -> Any:
        result = self._process(await before, worker, job, session)
        return await result if isawaitable(result) else result

    def _process(self, found: Any, worker: Any, job: Job, session: Mapping[str, Any]) -> Any:
        if found is not None:
            return found
        result = worker.process(job, **session)
        if isawaitable(result):
            return self._end_later(result, worker, job, session)
        if self.after is not None:
            self.after(worker, job, {**session, "result": result})
        return result

    async def _end_later(
        self, ending: Awaitable[Any], worker: Any, job: Job, session: Mapping[str, Any]
    ) -> Any:
        result = await ending
        if self.after is not None:
            ended = self.after(worker, job, {**session, "result": result})
            if isawaitable(ended):
                await ended
        return result


def method_hooks(cls: type, process: Callable[..., Any], *, takes_session: bool) -> Hooks:
    """The methods `before` and `after` of a class; `TypeError` if one has a wrong signature."""
    found = Hooks()
    for name, keywords in KEYWORDS.items():
        static = inspect.getattr_static(cls, name, None)
        method = getattr(cls, name, None)
        # Any other attribute of that name, for example a column of a model, is the user's own.
        if not inspect.isroutine(method):
            continue
        called = MethodType(static, cls) if inspect.isfunction(static) else method
        takes = _takes(f"{cls.__qualname__}.{name}", called, keywords, process, takes_session)
        setattr(found, name, Hook(attrgetter(name), takes))
    return found


def function_hook(
    name: str, function: Callable[..., Any], process: Callable[..., Any], *, takes_session: bool
) -> Hook:
    """Make the hook `name` from a function; `TypeError` if it has a wrong signature."""
    subject = f"{name} {function.__qualname__}"
    takes = _takes(subject, function, KEYWORDS[name], process, takes_session)
    return Hook(lambda worker: function, takes)


def _takes(
    subject: str,
    function: Callable[..., Any],
    keywords: tuple[str, ...],
    process: Callable[..., Any],
    takes_session: bool,
) -> tuple[str, ...]:
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{subject} contains a yield, so a call would not run it")
    signature = inspect.signature(function)
    takes = tuple(name for name in keywords if name in signature.parameters)
    try:
        signature.bind(object(), **dict.fromkeys(takes, object()))
    except TypeError:
        raise TypeError(
            f"{subject}{signature} can't be called: it may have the parameters"
            f" {', '.join(('job', *keywords))}, of which only the job is required"
        ) from None
    kinds = [inspect.iscoroutinefunction(one) for one in (function, process)]
    if kinds == [True, False]:
        raise TypeError(f"{subject} is async, but process is not: make it a plain function")
    if "session" in takes:
        if not takes_session:
            raise TypeError(f"{subject} takes a session, but process takes none: leave it out")
        if kinds == [False, True]:
            raise TypeError(f"{subject} takes the session of an async process: make it async")
        check_session(subject, function, "session")
    return takes
