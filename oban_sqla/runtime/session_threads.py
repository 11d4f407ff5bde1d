"""Session threads: a thread with an event loop and a connection for each plain worker at work."""

import asyncio
import contextlib
import contextvars
import queue
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

from .database import Database

# Seconds after which a thread without work ends, and closes its connection.
IDLE = 10.0
# Seconds that a stop waits for the threads without work to close their connections.
CLOSING = 5.0

Ended: TypeAlias = asyncio.Future[tuple[Any, BaseException | None]]
Work: TypeAlias = Callable[[Database], Coroutine[Any, Any, Any]]


class SessionThreads:
    """Runs each work in a thread of its own, with the database as that thread sees it.

    A thread that has finished takes the next work: its connection is kept for that. The threads are
    daemons, so they don't keep the process from its exit.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Thread] = []
        self._closed = False

    def start(self, database: Database, work: Work, name: str) -> Ended:
        """Start the work; what is returned gets its result, or what it raised."""
        loop = asyncio.get_running_loop()
        ended: Ended = loop.create_future()

        def deliver(result: Any, error: BaseException | None) -> None:
            if not ended.done():
                ended.set_result((result, error))

        def end(result: Any, error: BaseException | None) -> None:
            # The loop may be closed: then the job was given back, and nobody waits for its outcome.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(deliver, result, error)

        self._take(database).work.put((work, name, contextvars.copy_context(), end))
        return ended

    async def close(self) -> None:
        """End the threads that have no work now, and the others when they have finished."""
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
        """From a thread: it has finished its work; `False` if it shall end."""
        with self._lock:
            if not self._closed:
                self._idle.append(thread)
            return not self._closed

    def retire(self, thread: "_Thread") -> bool:
        """From a thread: it has had no work for long; `False` if there is work for it now."""
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
    """The threads for the plain workers of a database."""
    threads = _threads.get(database)
    if threads is None:
        threads = _threads[database] = SessionThreads()
    return threads


async def close_session_threads(database: Database) -> None:
    """Close the connections of the threads of a database; its next plain worker makes new ones."""
    threads = _threads.pop(database, None)
    if threads is not None:
        await threads.close()
