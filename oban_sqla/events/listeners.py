"""Calls the listeners of an event, and asks whether there are any."""

import logging
from collections.abc import Callable

from .targets import Enqueueing, Observable

_logger = logging.getLogger("oban_sqla.events")

# The listeners whose error was logged, by event and `id()`: a listener may be unhashable.
_complained: dict[tuple[str, int], object] = {}


def listened(target: Observable | Enqueueing, *names: str) -> bool:
    """Whether one of these events has a listener."""
    return any(getattr(target.dispatch, name) for name in names)


def emit(target: Observable | Enqueueing, name: str, data: object) -> None:
    """Call the listeners of an event. Errors of a listener are logged, not raised."""
    listeners = getattr(target.dispatch, name)
    if not listeners:
        return
    # A copy, since a listener may remove itself.
    for listener in tuple(listeners):
        try:
            listener(target, data)
        except BaseException:
            # Also SystemExit: it would keep the emitter from recording the outcome of a job.
            _complain(name, listener)


def _complain(name: str, listener: Callable[..., None]) -> None:
    """Log the current exception, once for each listener: a listener may fail for every job."""
    told = (name, id(listener)) in _complained
    # Keeps the listener alive, so that no other listener gets the same `id()`.
    _complained[name, id(listener)] = listener
    _logger.log(
        logging.DEBUG if told else logging.ERROR,
        "a listener of %r raised: %r; further errors of it are logged at DEBUG",
        name,
        listener,
        exc_info=True,
    )
