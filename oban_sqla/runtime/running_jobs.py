"""`RunningJobs`: the jobs of a queue that run on this node."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeAlias

from ..statements.acknowledge import Ack
from ..statements.claimed import Claimed
from .eager_task import eager_task
from .executor import Executor
from .service import UNWINDING
from .worker_session import Written

Outcome: TypeAlias = Ack | Written | None
"""The outcome of an attempt; `None` if the attempt was abandoned."""

Ended: TypeAlias = Callable[[Claimed, Outcome, float, float], None]
"""Called with a job, its outcome, and the instants at which it started and ended."""


class RunningJobs:
    """Runs each job in a task of its own."""

    def __init__(self, executor: Executor, ended: Ended, freed: Callable[[], None]) -> None:
        """`freed` is called after the end of a job that did not end in its first step."""
        self._executor = executor
        self._ended = ended
        self._freed = freed
        # The jobs and their starts. Not keyed by id: a job that another program has given back may
        # run here twice at once.
        self._jobs: dict[Claimed, float] = {}
        # The tasks of the jobs that did not end in their first step.
        self._tasks: dict[asyncio.Task[Outcome], Claimed] = {}
        self.abandoned = False
        """Whether the jobs that still run are abandoned, and go back."""

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def ids(self) -> list[int]:
        """The ids of the jobs."""
        return [claimed.id for claimed in self._jobs]

    def start(self, claimed: Claimed, held: float) -> float:
        """Start a job, and return the time after its first step."""
        # Called first, so that an error in reading the job does not take a slot of the queue for
        # ever.
        execution = self._executor.execute_claimed(claimed, held, self._is_abandoned)
        self._jobs[claimed] = time.monotonic()
        task = eager_task(execution, f"oban-job-{claimed.id}")
        if task.done():
            return self._end(claimed, task)
        self._tasks[task] = claimed
        task.add_done_callback(self._task_ended)
        return time.monotonic()

    async def wait(self, grace: float) -> None:
        """Wait `grace` seconds for the jobs, and abandon the others."""
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=grace)
        self.abandoned = True
        if left := list(self._tasks):
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=UNWINDING)

    def _task_ended(self, task: asyncio.Task[Outcome]) -> None:
        # A callback, since it is also called if the task is cancelled before its first step.
        self._end(self._tasks.pop(task), task)
        self._freed()

    def _end(self, claimed: Claimed, task: asyncio.Task[Outcome]) -> float:
        started, now = self._jobs.pop(claimed), time.monotonic()
        self._ended(claimed, None if task.cancelled() else task.result(), started, now)
        return now

    def _is_abandoned(self) -> bool:
        return self.abandoned
