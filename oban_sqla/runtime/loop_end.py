"""`LoopEnd`: stop a node whose event loop ends without a stop, as `asyncio.run()` does."""

import asyncio
from collections.abc import Awaitable, Callable


class LoopEnd:
    """Runs a function if the event loop ends: `asyncio.run()` then cancels all tasks."""

    def __init__(self, stop: Callable[[], Awaitable[None]]) -> None:
        self._stop = stop
        self._task: asyncio.Task[None] | None = None

    def watch(self) -> None:
        """Begin to watch the running event loop."""
        self._task = asyncio.create_task(self._wait(), name="oban-keeper")

    async def forget(self) -> None:
        """Watch no longer, unless the function runs already."""
        task, self._task = self._task, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            await asyncio.wait([task])

    async def _wait(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await self._stop()
