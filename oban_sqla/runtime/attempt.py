"""`Attempt`: a claimed job on its way through the executor, with its worker."""

import asyncio
from operator import is_
from typing import Any

from ..models import Job, JobState
from ..models.instrumentation import values_of
from ..models.job import COLUMNS, detached, tell_to_stop
from ..statements.acknowledge import Ack
from ..workers.registry import Registration, resolve
from .following import is_followed


class Attempt:
    """One attempt of a job, which is the worker's `own` from here on.

    It may change it, or add it to a session, whose commit expires it: the outcome, and what
    listeners are told, go by what was claimed.
    """

    __slots__ = (
        "__weakref__",
        "_claimed",
        "_registration",
        "_task",
        "_tried",
        "cancelled",
        "fence",
        "followed",
        "id",
        "interrupted",
        "left_behind",
        "own",
        "queue_time",
        "started",
        "worker",
    )

    def __init__(self, job: Job, held: float = 0.0) -> None:
        self.id = job.id
        assert job.attempted_at is not None
        self.fence = (job.id, job.attempt, job.attempted_at)
        """What an outcome of this attempt, and of no other one, begins with."""
        waited: float = 0.0
        if job.scheduled_at is not None:
            waited = (job.attempted_at - job.scheduled_at).total_seconds()
        self.queue_time = waited + held
        """Seconds from being due to the start."""
        self.started = 0.0
        """When it started, by the monotonic clock."""
        self.own = job
        self.worker: Any = None
        """The object that processes the job, once it is made: the row, if that is a model."""
        self._registration: Registration | None = None
        self._tried = False
        self._claimed = values_of(job).copy()
        self.followed = is_followed(self._claimed.get("meta"))
        """Whether other jobs may follow from its outcome."""
        self.cancelled = False
        """Whether somebody wants it to end."""
        self.interrupted = False
        """Whether its task was cancelled for that."""
        self.left_behind: asyncio.Future[Any] | None = None
        """The end of its thread or task, which goes on though nobody waits for it any more."""
        self._task: asyncio.Task[Any] | None = None

    @property
    def registration(self) -> Registration:
        """How to run the worker; `UnknownWorkerError` if it was not imported."""
        if self._registration is None:
            self._registration = resolve(self.own.worker)
        return self._registration

    def take_worker(self) -> Any:
        """The worker for one call of `process`: another object if an earlier one has failed."""
        if self.worker is None or self._tried or self.registration.is_model:
            self.worker = self.registration.processor(self.own)
        self._tried = True
        return self.worker

    def ack(self, state: JobState, **outcome: Any) -> Ack:
        """An outcome of this attempt."""
        return Ack(*self.fence, state, followed=self.followed, **outcome)

    @property
    def job(self) -> Job:
        """The job as it was claimed: the worker's own, if that is still as it was."""
        now, claimed = values_of(self.own), self._claimed
        # By identity: what its args hold by now may have an equality of its own.
        if now.keys() >= claimed.keys() and all(map(is_, map(now.get, claimed), claimed.values())):
            return self.own
        return self.copy()

    def copy(self) -> Job:
        """Another job as it was claimed, which knows whether it was cancelled meanwhile."""
        job = detached({key: self._claimed[key] for key in COLUMNS})
        if self.cancelled:
            tell_to_stop(job)
        return job

    def cancel(self) -> None:
        """Tell the worker that the job is cancelled, and interrupt it if it wants that; once."""
        if not self.cancelled:
            self.cancelled = True
            tell_to_stop(self.own)
            if self._task is not None:
                self.interrupted = True
                self._task.cancel()

    def interruptible_by(self, task: asyncio.Task[Any] | None) -> None:
        """From now on, cancelling the job cancels this task; `None`: not any more."""
        self._task = task
