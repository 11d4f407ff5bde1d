"""`Shared`: what many viewers look at, and one of them reads."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")

# A read that takes long rests for long: at most a tenth of the time goes into it.
RESTS = 10.0


class Shared(Generic[T]):
    """A value that is read again when somebody asks and it is older than `seconds`.

    A failure is shared, too, so that a broken database is asked no more often.
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
        """The value; raises what its last read raised."""
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
