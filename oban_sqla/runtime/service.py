"""`Service`: the loop on which all background services are based."""

import asyncio
import random
from collections.abc import Callable
from typing import ClassVar

from ..events import ServiceCancelled, ServiceFailed, ServiceRestored

Emit = Callable[[str, object], None]

FIRST_RETRY = 0.25
LONGEST_RETRY = 30.0
# Seconds in which the current pass must end at a stop.
GRACE = 5.0
# Seconds in which a cancelled loop must end, or it is left behind.
UNWINDING = 1.0


class Service:
    """A loop around `run_once`, which makes one pass and returns the seconds until the next.

    A pass that raises is repeated with a growing, jittered delay, and reported once for the whole
    outage. `wake()` requests a pass now. A request during a pass is not lost.
    """

    name: ClassVar[str]
    begins_in: ClassVar[float] = 0.0
    """Seconds from the start to the first pass, for a service that lets the jobs begin first."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._woken = asyncio.Event()
        self._stopping = asyncio.Event()
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0.0
        self._begins_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self._failures = 0

    async def run_once(self) -> float:
        """Make one pass; `math.inf` waits for `wake()`."""
        raise NotImplementedError

    async def close(self) -> None:
        """Release the resources of the loop. Called after its end, perhaps more than once.

        An error is reported, and does not prevent the stop of other services.
        """

    @property
    def label(self) -> str:
        """The service's name in events and tasks."""
        return self.name

    @property
    def failing(self) -> bool:
        """Whether the last pass raised."""
        return self._failures > 0

    @property
    def failures(self) -> int:
        """The number of failed passes in a row."""
        return self._failures

    @property
    def longest_retry(self) -> float:
        """The longest delay, in seconds, until a failed pass is repeated."""
        return LONGEST_RETRY

    def news(self) -> None:
        """Hear that there may be new jobs. Most services ignore that."""

    def wake(self) -> None:
        """Make a pass now."""
        self._woken.set()

    def wake_in(self, seconds: float) -> None:
        """Make a pass after at most `seconds`, if the service runs."""
        if self._task is None:
            # Before the start, the first pass is still to come. After the end, no pass may come.
            return
        loop = asyncio.get_running_loop()
        when = loop.time() + seconds
        if self._alarm is not None:
            if self._alarm_at <= when:
                return
            self._alarm.cancel()
        # The time is stored, because uvloop's handle of a due alarm does not have it.
        self._alarm, self._alarm_at = loop.call_at(when, self._ring), when

    async def start(self) -> None:
        """Start the loop, unless it runs already."""
        async with self._lock:
            if self._task is None:
                self._stopping.clear()
                self._woken.clear()
                self._failures = 0
                self._begins_at = asyncio.get_running_loop().time() + self.begins_in
                self._task = asyncio.create_task(self._loop(), name=f"oban-{self.label}")

    async def stop(self, grace: float | None = None) -> None:
        """Stop the loop. The current pass has `grace` seconds to end, by default `GRACE`.

        `stop` may be called several times, also at the same time, before `start`, and again after
        it was cancelled.
        """
        async with self._lock:
            if self._task is not None:
                self._stopping.set()
                self._woken.set()
                await self._end(self._task, GRACE if grace is None else grace)
                self._task = None
            if self._alarm is not None:
                self._alarm.cancel()
                self._alarm = None
            try:
                await self.close()
            except Exception as error:
                self.failed(error)

    async def _end(self, task: asyncio.Task[None], grace: float) -> None:
        await asyncio.wait([task], timeout=grace)
        if not task.done():
            self._emit("service_cancelled", ServiceCancelled(self.label, grace))
            # Twice: psycopg takes the first cancellation as a request to the server, and waits.
            for _ in range(2):
                task.cancel()
                await asyncio.wait([task], timeout=UNWINDING)

    async def _loop(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            self._woken.clear()
            if (early := self._begins_at - loop.time()) > 0:
                await self._sleep(early)
                continue
            try:
                delay = await self.run_once()
            except Exception as error:
                self._failures += 1
                if self._failures == 1:
                    self.failed(error)
                await self._back_off()
            else:
                if self._failures:
                    self._failures = 0
                    self.restored()
                await self._sleep(delay)

    def failed(self, error: Exception) -> None:
        """Report the first of several failures in a row."""
        self._emit("service_failed", ServiceFailed(self.label, error))

    def restored(self) -> None:
        """Report the first success after failures."""
        self._emit("service_restored", ServiceRestored(self.label))

    async def _sleep(self, seconds: float) -> None:
        if seconds <= 0:
            # Other tasks must get a turn even if the next pass comes at once.
            await asyncio.sleep(0)
            return
        if seconds != float("inf"):
            self.wake_in(seconds)
        await self._woken.wait()

    async def _back_off(self) -> None:
        # `wake()` does not shorten this delay: new work would hammer a server that is down.
        delay = min(self.longest_retry, FIRST_RETRY * 2 ** min(self._failures - 1, 10))
        try:
            async with asyncio.timeout(delay * random.uniform(0.5, 1.0)):
                await self._stopping.wait()
        except TimeoutError:
            pass

    def _ring(self) -> None:
        self._alarm = None
        self._woken.set()
