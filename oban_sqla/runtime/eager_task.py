"""`eager_task`: a task that begins at once, so that a short job costs no turn of the event loop."""

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def eager_task(coroutine: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
    """Create a task. From Python 3.12 on, its first step runs now, and it may already be done."""
    if sys.version_info >= (3, 12):
        loop = asyncio.get_running_loop()
        return asyncio.Task(coroutine, loop=loop, name=name, eager_start=True)
    return asyncio.create_task(coroutine, name=name)
