"""Run chosen jobs one after the other, as a producer does, and count their outcomes."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from uuid import uuid4

from sqlalchemy import Executable

from ..clock import held_at
from ..config.queues import Queue
from ..config.values import LARGEST_COUNT
from ..events import JobException
from ..limits.key_jobs import key_jobs
from ..limits.keyed_claim import WHOLE, claim_keyed
from ..limits.queue_limits import QueueLimits
from ..limits.search import FRONT, PRIORITIES
from ..models import JobState
from ..runtime.executor import Executor
from ..runtime.following import follow_by
from ..runtime.service import Emit
from ..runtime.worker_session import WorkerSessions, Written
from ..statements.acknowledge import acknowledge_discards, outcomes
from ..statements.claim import claim
from ..statements.claimed import Claimed, Loads

COUNTED = ("completed", "cancelled", "discarded", "retryable", "scheduled")
"""The states of a job after an attempt."""


class JobDatabase(WorkerSessions, Protocol):
    """The database in which jobs run: that of an instance, or the transaction of a session."""

    @property
    def prefix(self) -> str | None: ...

    @property
    def loads(self) -> Loads: ...

    async def fetch(
        self, statement: Executable, params: Mapping[str, Any] | None = None
    ) -> Sequence[Any]: ...


class Attempts:
    """The attempts of one call, and the number of jobs by their states afterwards."""

    def __init__(self, database: JobDatabase, *, with_safety: bool, emit: Emit | None = None):
        self.counts = dict.fromkeys(COUNTED, 0)
        self._database = database
        self._with_safety = with_safety
        self._listeners = emit
        self._producer = str(uuid4())
        # The limit's key of the job that ran last: keys take turns.
        self._cursor = ""
        self._raised: BaseException | None = None

    async def run(self, id: int) -> JobState | None:
        """Claim a job, run it, and write its outcome; `None` if it is not available any more.

        Without `with_safety`, an error of the worker is recorded, and then raised here.
        """
        claimed = await self._claim(id)
        return None if claimed is None else await self._run(claimed)

    async def run_within_limits(self, queue: Queue) -> tuple[int, JobState | None] | None:
        """Run the next job of a queue that its limits let start, and return its id and state.

        `None` if none may start.
        """
        limits = QueueLimits(queue)
        front = {"queue_name": queue.name, "since": [FRONT] * PRIORITIES}
        if limits.keys is not None:
            write = {**front, "after": [0] * PRIORITIES, "batch": LARGEST_COUNT}
            await self._database.fetch(key_jobs(limits.keys), write)
        params = {
            **front,
            "limit": 1,
            "node_name": "testing",
            "producer": self._producer,
            "cursor": self._cursor,
            **limits.params,
        }
        (row, *_) = await self._database.fetch(claim_keyed(limits.keys, now=held_at()), params)
        if row[0] is None:
            return None
        *columns, key = row[:-WHOLE]
        self._cursor = key or self._cursor
        claimed = Claimed(columns)
        return claimed.id, await self._run(claimed)

    async def _run(self, claimed: Claimed) -> JobState | None:
        state: JobState | None = claimed.state
        if state is JobState.EXECUTING:
            state = await self._execute(claimed)
        if state is not None:
            self.counts[state.value] += 1
        raised, self._raised = self._raised, None
        if raised is not None and not self._with_safety:
            raise raised
        return state

    async def _claim(self, id: int) -> Claimed | None:
        rows = await self._database.fetch(
            claim(now=held_at()),
            {"ids": [id], "limit": 1, "node_name": "testing", "producer": self._producer},
        )
        return Claimed(rows[0]) if rows else None

    async def _execute(self, claimed: Claimed) -> JobState | None:
        executor = Executor(self._database, self._emit, self._database.loads)
        outcome = await executor.execute_claimed(claimed, 0.0, _is_cancelled)
        if outcome is None:
            raise asyncio.CancelledError
        if isinstance(outcome, Written):
            return outcome.ack.state if outcome.applied else None
        # Nothing is written if the worker has deleted its own job.
        statement = acknowledge_discards(prefix=self._database.prefix, now=held_at())
        written = await self._database.fetch(statement, outcomes([outcome]))
        if written and outcome.followed:
            await follow_by(self._database, [outcome.id], self._database.prefix, wait=True)
        return outcome.state if written else None

    def _emit(self, name: str, data: object) -> None:
        if isinstance(data, JobException):
            self._raised = data.error
        if self._listeners is not None:
            self._listeners(name, data)


def _is_cancelled() -> bool:
    # If the worker itself raises CancelledError, the attempt failed; only a cancelled task stops.
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
