"""`Ahead`: the jobs that were claimed before there is a slot for them."""

import math
from collections import deque
from collections.abc import Coroutine
from typing import Any, TypeAlias

from ..statements.acknowledge import Ack
from .transaction import Written

# How many jobs may wait for a slot: so many more are orphans when the process dies.
MOST = 100
# How long a job may wait here while other nodes might run it: some that run take longer than those
# before them.
LONGEST_WAIT = 1.0

Execution: TypeAlias = Coroutine[Any, Any, Ack | Written | None]


class Ahead:
    """Executions that were not begun, in their order, and how many of them there should be.

    As many as will end until the database answers the next time, if they end at the pace of the
    last ones: so jobs that are done at once need not wait for each claim, and of those that take
    longer none is kept from another node. `now` is the monotonic clock's.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, Execution]] = deque()
        self._since = math.inf
        self._ended = 0
        self._answered_at = -math.inf
        self.wanted = 0
        """How many should wait here, going by the last pass."""

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def ids(self) -> list[int]:
        """The ids of the jobs that wait."""
        return [id for id, _ in self._waiting]

    def seconds_left(self, now: float) -> float:
        """How long those that wait may still do so; 0 when it was too long."""
        if not self._waiting:
            return math.inf
        return max(0.0, self._since + LONGEST_WAIT - now)

    def put(self, id: int, execution: Execution, now: float) -> None:
        """Add the execution of a job."""
        if not self._waiting:
            self._since = now
        self._waiting.append((id, execution))

    def take(self) -> tuple[int, Execution]:
        """Take out the first one, to begin it."""
        return self._waiting.popleft()

    def drop(self) -> None:
        """Begin none of them; whoever calls this gives the jobs back."""
        while self._waiting:
            _, execution = self._waiting.popleft()
            execution.close()
        self.wanted = 0

    def ended(self) -> None:
        """Count a job that ended."""
        self._ended += 1

    def answered(self, took: float, now: float) -> None:
        """Learn that the database took so many seconds to acknowledge, and to claim."""
        since = now - self._answered_at
        self.wanted = min(MOST, int(self._ended * took / since)) if since > 0 else 0
        self._ended, self._answered_at = 0, now
