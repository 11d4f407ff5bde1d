"""The event loop of `oban-sqla start`: uvloop, if it is installed (extra `fast`)."""

import asyncio
from collections.abc import Callable
from importlib import import_module


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """The factory of event loops: uvloop's if it is installed, otherwise asyncio's."""
    try:
        factory: Callable[[], asyncio.AbstractEventLoop] = import_module("uvloop").new_event_loop
    except ModuleNotFoundError:
        return asyncio.new_event_loop
    return factory


def loop_name() -> str:
    """The name of the package whose event loop runs."""
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]
