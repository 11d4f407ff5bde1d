"""The seam for features that act on the declarations of workers."""

from typing import Protocol

from .declaration import Declaration


class Listener(Protocol):
    """Is called with each worker class that is declared, when it is mapped if it is a model."""

    def __call__(self, cls: type, options: Declaration, *, is_model: bool) -> None: ...


_listeners: list[Listener] = []


def listen(listener: Listener) -> None:
    """Have a feature called with the worker classes that are declared from now on."""
    if listener not in _listeners:
        _listeners.append(listener)


def tell(cls: type, options: Declaration, *, is_model: bool) -> None:
    """Tell the features of a declared class; an error of theirs refuses the declaration."""
    for listener in _listeners:
        listener(cls, options, is_model=is_model)
