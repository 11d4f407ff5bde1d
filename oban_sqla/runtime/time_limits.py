"""Time limits for answers of the database."""

import asyncio
from types import TracebackType

# Seconds after which a server that does not answer counts as lost.
ANSWER_TIMEOUT = 60.0
# The shortest limit, for answers that are needed soon.
SHORTEST_ANSWER = 1.0
# Seconds that a stop waits for a database that does not answer.
STOP_TIMEOUT = 5.0
# Seconds for closing a connection that did not answer.
CLOSING = 1.0


class deadline:  # noqa: N801 - used like a function, as is asyncio.timeout
    """`TimeoutError` if the block takes longer than `seconds`, even if the server does not answer.

    psycopg takes a first cancellation as a request to cancel the statement, and waits for the
    server. A second cancellation, `CLOSING` seconds later, makes it give up.

    Two `asyncio.timeout` would do the same, but each statement would pay for two timers.
    """

    __slots__ = ("_before", "_cancelled", "_seconds", "_task", "_timer")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._cancelled = 0

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        # Someone else may have cancelled the task already.
        self._before = task.cancelling()
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._cancel)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        if not self._cancelled:
            return
        for _ in range(self._cancelled):
            requests = self._task.uncancel()
        if isinstance(error, asyncio.CancelledError) and requests <= self._before:
            raise TimeoutError from error

    def _cancel(self) -> None:
        if not self._cancelled:
            self._timer = asyncio.get_running_loop().call_later(CLOSING, self._cancel)
        self._cancelled += 1
        self._task.cancel()
