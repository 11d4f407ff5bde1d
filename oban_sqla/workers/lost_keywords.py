"""Find keywords of a class statement that never reach `Worker`, or that no base takes.

Some metaclasses, such as SQLModel's, do not pass keywords on. Their call is still on the stack when
`Worker.__init_subclass__` runs, and has the keywords.
"""

import inspect
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .option import refuse_unknown

_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_CALLS = ("__new__", "__init_subclass__")


def refuse_lost(cls: type, received: Collection[str], known: Collection[str]) -> None:
    """`TypeError` if the class statement has a known option that `Worker` did not receive."""
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


@contextmanager
def explained(cls: type, given: Collection[str], known: Collection[str]) -> Iterator[None]:
    """Replace the `TypeError` for a keyword that no base takes by one that suggests an option.

    The block passes the keywords to the other bases.
    """
    try:
        yield
    except TypeError:
        refuse_unknown(cls.__qualname__, "option", _untaken(cls, given), known)
        raise


def _untaken(cls: type, given: Iterable[str]) -> list[str]:
    """The keywords for which no base's `__init_subclass__` has a parameter."""
    taken = {name for base in cls.__mro__[1:] for name in _parameters(base)}
    return [name for name in given if name not in taken]


def _parameters(base: type) -> Iterator[str]:
    """The keywords that the `__init_subclass__` of a base names."""
    if "__init_subclass__" not in vars(base):
        return
    try:
        signature = inspect.signature(base.__init_subclass__)
    except ValueError:
        return  # a builtin takes no keywords
    for parameter in signature.parameters.values():
        if parameter.kind in _BY_NAME:
            yield parameter.name


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
