"""`Shared`: a value that one read provides for many viewers."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Generic, TypeVar

T = TypeVar("T")

# After a long read there is a long pause, so that reads take at most a tenth of the time.
RESTS = 10.0


class Shared(Generic[T]):
    """A value that is read again at a request if it is older than `seconds`.

    A failure is shared, too, so that a broken database gets no more requests.
    """

    def __init__(self, read: Callable[[], Awaitable[T]], seconds: float) -> None:
        self._read = read
        self._seconds = seconds
        self._turn = asyncio.Lock()
        self._fresh_until = float("-inf")
        self._value: T | None = None
        self._error: Exception | None = None
        self.reads = 0

    async def get(self) -> T:
        """The value, or the error of the last read."""
        async with self._turn:
            started = time.monotonic()
            if started >= self._fresh_until:
                await self._again(started)
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]

    async def _again(self, started: float) -> None:
        self.reads += 1
        try:
            self._value, self._error = await self._read(), None
        except Exception as error:
            self._error = error
        took = time.monotonic() - started
        self._fresh_until = started + max(self._seconds, RESTS * took)


class Refreshes:
    """What live pages read, shared by all viewers of the same page."""

    MOST = 20
    """The most reads that are kept, the latest ones."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._kept: dict[Hashable, Shared[Any]] = {}

    async def get(self, key: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        """The result of `read`, or of another read with the same key in the last `seconds`."""
        shared: Shared[T] = self._kept.setdefault(key, Shared(read, self._seconds))
        self._kept[key] = self._kept.pop(key)  # the latest one
        if len(self._kept) > self.MOST:
            del self._kept[next(iter(self._kept))]
        return await shared.get()
