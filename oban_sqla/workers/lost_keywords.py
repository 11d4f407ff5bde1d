"""Keywords of a class statement that never reach `Worker`: another base or a metaclass keeps them.

SQLModel's metaclass does, for one. The call that was given the keywords is still running then.
"""

import inspect
from collections.abc import Collection, Iterator, Mapping
from typing import Any

_CALLS = ("__new__", "__init_subclass__")


def refuse_lost(cls: type, received: Collection[str], known: Collection[str]) -> None:
    """`TypeError` for a known option that the class statement has and `Worker` did not receive."""
    for call in _calls_that_make(cls):
        given: Mapping[str, Any] = call.locals[call.keywords] if call.keywords else {}
        lost = [name for name in given if name in known and name not in received]
        if lost:
            options = ", ".join(f"{name}=..." for name in lost)
            first = call.locals[call.args[0]]
            keeper = "a base before Worker" if first is cls else first.__name__
            raise TypeError(
                f"{cls.__qualname__} has the keywords {', '.join(lost)}, but {keeper} does not pass"
                f" them on to Worker: take them out of the class statement, and write"
                f" @worker({options}) above it"
            )


def _calls_that_make(cls: type) -> Iterator[inspect.ArgInfo]:
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name in _CALLS:
            call = inspect.getargvalues(frame)
            first = [call.locals[name] for name in call.args[:2]]
            # __init_subclass__(cls, ...) or __new__(metaclass, name, ...)
            if first[:1] == [cls] or first == [type(cls), cls.__name__]:
                yield call
        frame = frame.f_back
