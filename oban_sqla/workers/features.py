"""The seam for features that react to the declaration of workers."""

from typing import Protocol

from .declaration import Declaration


class Listener(Protocol):
    """A function that is called for each declared worker class, for a model after its mapping."""

    def __call__(self, cls: type, declaration: Declaration, *, is_model: bool) -> None: ...


_listeners: list[Listener] = []


def listen(listener: Listener) -> None:
    """Call a listener for each worker class that is declared from now on."""
    if listener not in _listeners:
        _listeners.append(listener)


def tell(cls: type, declaration: Declaration, *, is_model: bool) -> None:
    """Call the listeners for a declared class. An error of a listener refuses the declaration."""
    for listener in _listeners:
        listener(cls, declaration, is_model=is_model)
