"""Attach listeners of events, and detach them."""

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from sqlalchemy import event

Listener: TypeAlias = tuple[type, str, Callable[[Any, Any], None]]
"""A target, the name of an event, and the function that listens."""


def attach(listeners: Iterable[Listener]) -> None:
    """Attach the listeners that are not attached yet."""
    for target, name, listener in listeners:
        if not event.contains(target, name, listener):
            event.listen(target, name, listener)


def detach(listeners: Iterable[Listener]) -> None:
    """Detach the listeners that are attached."""
    for target, name, listener in listeners:
        if event.contains(target, name, listener):
            event.remove(target, name, listener)
