"""`LoopThread`: a thread with its own event loop, which runs while a worker blocks the main one."""

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

Result = TypeVar("Result")

# Seconds in which a thread must end its tasks, and seconds in which it must close its resources.
ENDING = 1.0


class LoopThread:
    """Runs coroutines for the event loop that made it, until `end`. Then it calls `close`.

    The thread is a daemon, so it does not prevent the exit of the process. A forked child does not
    have the thread.
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
        """Whether the owner's event loop was closed without a call of `end`."""
        return self._owner.is_closed()

    async def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine in the thread, and wait for its result. A cancellation is passed on."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def call_owner(self, call: Any, *args: Any) -> None:
        """Call a function in the owner's event loop, unless it was closed. Called by the thread."""
        try:
            self._owner.call_soon_threadsafe(call, *args)
        except RuntimeError:
            if not self.deserted:
                raise

    async def end(self) -> None:
        """Cancel the tasks of the thread, and end it; `TimeoutError` if it does not end soon."""
        if not self._ended.is_set():
            # The thread may have ended, before the owner's event loop has heard of it.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._ending.set)
            async with asyncio.timeout(3 * ENDING):
                await self._ended.wait()
        self._thread.join(ENDING)

    def quit(self) -> None:
        """End the thread. Called by the thread."""
        self._ending.set()

    def _run(self) -> None:
        if hasattr(signal, "pthread_sigmask"):
            # Only the main thread handles signals. A signal to this thread would not wake it.
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._until_the_end())
        finally:
            self.call_owner(self._ended.set)

    async def _until_the_end(self) -> None:
        await self._ending.wait()
        # Tasks end first, since they hold connections: first by themselves, then by a cancellation.
        # Cancelled twice, because psycopg takes the first one as a request to cancel the statement.
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
