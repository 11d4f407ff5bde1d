"""A thread with an event loop of its own, for what must go on while user code blocks ours."""

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

Result = TypeVar("Result")

# How long a thread may take to end what is under way, and to close what it holds.
ENDING = 1.0


class LoopThread:
    """Runs coroutines for the event loop that made it, from now until `end`, then `close`.

    A daemon: it does not keep the process from its exit. A forked child has no such thread.
    """

    def __init__(self, name: str, close: Callable[[], Awaitable[None]]) -> None:
        self._owner = asyncio.get_running_loop()
        self._loop = asyncio.new_event_loop()
        self._ending = asyncio.Event()
        self._ended = asyncio.Event()
        self._close = close
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def deserted(self) -> bool:
        """Whether nobody is there any more: the owner's event loop was closed, without an `end`."""
        return self._owner.is_closed()

    async def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run it there, and wait for its result; whoever is cancelled meanwhile cancels it."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def call_owner(self, call: Any, *args: Any) -> None:
        """From the thread: call something in the owner's event loop, if it is there still."""
        try:
            self._owner.call_soon_threadsafe(call, *args)
        except RuntimeError:
            if not self.deserted:
                raise

    async def end(self) -> None:
        """Cancel what runs there, and end the thread; `TimeoutError` if it does not end soon."""
        if not self._ended.is_set():
            # It may have ended, which the owner's event loop is told next.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._ending.set)
            async with asyncio.timeout(3 * ENDING):
                await self._ended.wait()
        self._thread.join(ENDING)

    def quit(self) -> None:
        """From the thread: end it."""
        self._ending.set()

    def _run(self) -> None:
        if hasattr(signal, "pthread_sigmask"):
            # Only the main thread handles signals: one delivered here would not wake it.
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._until_the_end())
        finally:
            self.call_owner(self._ended.set)

    async def _until_the_end(self) -> None:
        await self._ending.wait()
        # What is under way holds connections, so it ends first: by itself if it can, as what closes
        # one does. Then twice, as psycopg takes the first for a wish to cancel the statement.
        for _ in range(3):
            with suppress(TimeoutError):
                async with asyncio.timeout(ENDING / 3):
                    while others := _others():
                        await asyncio.wait(others)
            for task in _others():
                task.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(ENDING):
                await self._close()


def _others() -> set[asyncio.Task[Any]]:
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}
