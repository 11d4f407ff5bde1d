"""`Binding`: convert calls of a function to arguments of jobs, and back."""

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from . import annotations
from .option import refuse_unknown
from .provided import provided_parameters
from .sessions import check_session, for_sessions

_POSITIONAL = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_VAR_KEYWORD = inspect.Parameter.VAR_KEYWORD


class Binding:
    """Converts the arguments of a call to the arguments of a job, and back.

    The signature is read once. The fast path covers most calls. `inspect` binds calls of functions
    with `*args`, `**kwargs` or positional-only parameters, and wrong calls.
    """

    def __init__(self, function: Callable[..., Any], *, session: bool) -> None:
        """`TypeError` if `session` is true, but the first parameter can't take a session."""
        self._function = function
        self._whole = inspect.signature(function)
        self._session = self._first() if session else None
        all_but_session = {n: p for n, p in self._whole.parameters.items() if n != self._session}
        self.provided = provided_parameters(function, all_but_session)
        """The parameters whose values a feature provides when the job runs."""
        self._called = self._whole.replace(parameters=list(all_but_session.values()))
        own = [p for name, p in all_but_session.items() if name not in self.provided]
        self.signature = self._whole.replace(parameters=own)
        """The signature without the session, and without the provided parameters."""
        self._others = next((p.name for p in own if p.kind is _VAR_KEYWORD), None)
        self._is_common = all(p.kind in _BY_NAME for p in all_but_session.values())
        self._names = frozenset(p.name for p in own)
        self._positional = tuple(p.name for p in own if p.kind in _POSITIONAL)
        self._required = frozenset(p.name for p in own if p.default is p.empty)

    def arguments(
        self,
        subject: str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        options: Collection[str] = (),
    ) -> dict[str, Any]:
        """The arguments of a call as the arguments of a job, in JSON.

        `TypeError` if the call does not fit the function. The message suggests one of the `options`
        if a keyword looks like it.
        """
        named = self._bind(args, kwargs)
        if named is None:
            named = self._inspect(subject, args, kwargs, options)
        annotations.refuse_text(subject, named, self._numbers)
        if not self._kinds:
            return named
        return {
            name: self._convert(annotations.to_json, subject, name, value)
            for name, value in named.items()
        }

    def call(self, subject: str, arguments: Mapping[str, Any], session: Any) -> Any:
        """Call the function with the arguments of a job, and with the session if it takes one.

        `TypeError` for an unknown or a missing argument. `ValueError` for a value that can't be
        converted to the annotated type.
        """
        if self._kinds:
            arguments = {
                name: self._convert(annotations.from_json, subject, name, value)
                for name, value in arguments.items()
            }
        if self._is_common and arguments.keys() <= self._called.parameters.keys():
            given = () if self._session is None else (session,)
            return self._function(*given, **arguments)
        bound = self._unbind(subject, arguments, session)
        return self._function(*bound.args, **bound.kwargs)

    def _bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
        """The arguments by name; `None` for a call that needs `inspect`."""
        if not self._is_common or len(args) > len(self._positional):
            return None
        named = dict(zip(self._positional, args, strict=False))
        if kwargs:
            if not kwargs.keys() <= self._names or not named.keys().isdisjoint(kwargs):
                return None
            named.update(kwargs)
        return named if named.keys() >= self._required else None

    def _inspect(
        self,
        subject: str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        options: Collection[str],
    ) -> dict[str, Any]:
        parameters = self.signature.parameters
        others = self._others
        if others is None:
            refuse_unknown(subject, "argument", kwargs, (*parameters, *options))
        try:
            bound = self.signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"{subject}{self.signature}: {error}") from None
        further = bound.pop(others, {}) if others else {}
        # In f(a=1, /, **kwargs), a call may also pass a keyword `a`. A job stores only one `a`.
        if ambiguous := further.keys() & parameters.keys() - {others}:
            raise TypeError(
                f"{subject}{self.signature}: a job can't keep {min(ambiguous)!r}, since a parameter"
                " has the same name"
            )
        return {**bound, **further}

    def _unbind(
        self, subject: str, arguments: Mapping[str, Any], session: Any
    ) -> inspect.BoundArguments:
        remaining = dict(arguments)
        bound = inspect.BoundArguments(self._whole, {})
        if self._session is not None:
            bound.arguments[self._session] = session
        for name in self._called.parameters:
            if name == self._others:
                bound.arguments[name] = remaining
                remaining = {}
            elif name in remaining:
                bound.arguments[name] = remaining.pop(name)
        if remaining:
            raise TypeError(
                f"{subject}{self.signature} takes no argument {next(iter(remaining))!r}"
            )
        return bound

    @functools.cached_property
    def _kinds(self) -> Mapping[str, Any]:
        # Evaluated at the first use: a name in an annotation may be defined after the function.
        return annotations.converted(self._function, self._called)

    @functools.cached_property
    def _numbers(self) -> Mapping[str, str]:
        return annotations.numbers(self._function, self.signature)

    def _convert(self, convert: Callable[..., Any], subject: str, name: str, value: object) -> Any:
        if self._others is not None and name not in self._called.parameters:
            name = self._others
        kind = self._kinds.get(name)
        return value if kind is None else convert(subject, name, value, kind)

    def _first(self) -> str:
        function = self._function
        first = next(iter(self._whole.parameters.values()), None)
        if first is None or first.kind is not first.POSITIONAL_OR_KEYWORD:
            raise TypeError(
                f"{function.__qualname__}{self._whole} with session=True needs a first"
                " parameter for the session"
            )
        check_session(function.__qualname__, function, first.name)
        return first.name

    def refuse_sessions(self) -> None:
        """`TypeError` if a session is among the arguments of a job."""
        sessions = for_sessions(self._function)
        for parameter in self.signature.parameters:
            if parameter in sessions:
                raise TypeError(
                    f"{self._function.__qualname__} has a parameter {parameter!r} for a session,"
                    " which no job can hold: make it the first one, and say @job(session=True)"
                )
