"""`SessionThreads`: run each sync worker with a session in a thread with its own connection."""

import asyncio
import contextlib
import contextvars
import queue
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

from .database import Database

# Seconds after which an idle thread ends, and closes its connection.
IDLE = 10.0
# Seconds that a stop waits for the idle threads to close their connections.
CLOSING = 5.0

Ended: TypeAlias = asyncio.Future[tuple[Any, BaseException | None]]
Work: TypeAlias = Callable[[Database], Coroutine[Any, Any, Any]]


class SessionThreads:
    """Runs each work in a thread, with a copy of the database that belongs to the thread.

    A thread that has finished takes the next work, and keeps its connection meanwhile. The threads
    are daemons, so they don't prevent the exit of the process.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Thread] = []
        self._closed = False

    def start(self, database: Database, work: Work, name: str) -> Ended:
        """Start a work. The returned future gets its result and its error."""
        loop = asyncio.get_running_loop()
        ended: Ended = loop.create_future()

        def deliver(result: Any, error: BaseException | None) -> None:
            if not ended.done():
                ended.set_result((result, error))

        def end(result: Any, error: BaseException | None) -> None:
            # If the event loop is closed, the job was given back, and its outcome is not needed.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(deliver, result, error)

        self._take(database).work.put((work, name, contextvars.copy_context(), end))
        return ended

    async def close(self) -> None:
        """End the idle threads now, and the other threads when they have finished."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for thread in idle:
            thread.work.put(None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSING):
                for thread in idle:
                    await asyncio.to_thread(thread.join, CLOSING)

    def release(self, thread: "_Thread") -> bool:
        """Make a thread idle that has finished its work. Returns `False` if it must end."""
        with self._lock:
            if not self._closed:
                self._idle.append(thread)
            return not self._closed

    def retire(self, thread: "_Thread") -> bool:
        """Remove a thread that was idle for long. Returns `False` if it has work now."""
        with self._lock:
            if thread not in self._idle:
                return False
            self._idle.remove(thread)
            return True

    def _take(self, database: Database) -> "_Thread":
        with self._lock:
            if self._idle:
                return self._idle.pop()
        thread = _Thread(self, database.apart())
        thread.start()
        return thread


class _Thread(threading.Thread):
    def __init__(self, threads: SessionThreads, database: Database) -> None:
        super().__init__(name="oban-session", daemon=True)
        self.work: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._threads = threads
        self._database = database

    def run(self) -> None:
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            while (given := self._next()) is not None:
                work, self.name, context, end = given
                try:
                    result, error = runner.run(work(self._database), context=context), None
                except BaseException as raised:
                    result, error = None, raised
                released = self._threads.release(self)
                end(result, error)
                del given, work, context, end, result, error
                if not released:
                    break
            with contextlib.suppress(Exception):
                runner.run(self._database.dispose())

    def _next(self) -> Any:
        while True:
            try:
                return self.work.get(timeout=IDLE)
            except queue.Empty:
                if self._threads.retire(self):
                    return None


_threads: WeakKeyDictionary[Database, SessionThreads] = WeakKeyDictionary()


def session_threads(database: Database) -> SessionThreads:
    """The threads for the sync workers of a database."""
    threads = _threads.get(database)
    if threads is None:
        threads = _threads[database] = SessionThreads()
    return threads


async def close_session_threads(database: Database) -> None:
    """End the threads of a database. The next sync worker starts new ones."""
    threads = _threads.pop(database, None)
    if threads is not None:
        await threads.close()
