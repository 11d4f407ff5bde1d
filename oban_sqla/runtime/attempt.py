"""`Attempt`: one run of a claimed job, with its worker and fence."""

import asyncio
from datetime import datetime
from operator import is_
from typing import Any

from ..models import Job, JobState
from ..models.instrumentation import values_of
from ..models.job import COLUMNS, detached, tell_to_stop
from ..statements.acknowledge import Ack
from ..workers.registry import Registration, resolve
from .following import is_followed


class Attempt:
    """One attempt of a job.

    The worker gets the job as `own`, and may change it or add it to a session, whose commit expires
    it. So the outcome and the events use the values as they were claimed.
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
        # Kept here, since reading an attribute of a mapped instance costs a call.
        claimed = self._claimed = values_of(job).copy()
        self.id: int = claimed["id"]
        attempted_at: datetime = claimed["attempted_at"]
        self.fence = (self.id, claimed["attempt"], attempted_at)
        """The id, attempt and claim time. An outcome applies only while the row has these."""
        waited: float = 0.0
        if (scheduled_at := claimed["scheduled_at"]) is not None:
            waited = (attempted_at - scheduled_at).total_seconds()
        self.queue_time = waited + held
        """Seconds from when the job was due to its start."""
        self.started = 0.0
        """When the attempt started, by the monotonic clock."""
        self.own = job
        self.worker: Any = None
        """The object that processes the job: the row of a model, or a new object."""
        self._registration: Registration | None = None
        self._tried = False
        self.followed = is_followed(claimed["meta"])
        """Whether other jobs may wait for the outcome of the job, as in a workflow."""
        self.cancelled = False
        """Whether the job was cancelled."""
        self.interrupted = False
        """Whether the task of the attempt was cancelled because the job was cancelled."""
        self.left_behind: asyncio.Future[Any] | None = None
        """The end of a thread or task that still runs after the attempt has ended."""
        self._task: asyncio.Task[Any] | None = None

    @property
    def registration(self) -> Registration:
        """How to run the worker; `UnknownWorkerError` if it was not imported."""
        if self._registration is None:
            self._registration = resolve(self.own.worker)
        return self._registration

    def take_worker(self) -> Any:
        """The worker for one call of `process`. After a failed call, it is a new object."""
        if self.worker is None or self._tried or self.registration.is_model:
            self.worker = self.registration.processor(self.own)
        self._tried = True
        return self.worker

    def ack(
        self,
        state: JobState,
        *,
        delay: float | None = None,
        spent: bool = True,
        error: str | None = None,
        meta: dict[str, Any] | None = None,
        holds: float | None = None,
    ) -> Ack:
        """An outcome of this attempt."""
        return Ack(*self.fence, state, delay, spent, error, meta, self.followed, holds)

    @property
    def job(self) -> Job:
        """The job as it was claimed: `own` if it is unchanged, otherwise a copy."""
        now, claimed = values_of(self.own), self._claimed
        # Compared by identity: values in args may define their own equality.
        if now.keys() >= claimed.keys() and all(map(is_, map(now.get, claimed), claimed.values())):
            return self.own
        return self.copy()

    def copy(self) -> Job:
        """A copy of the job as it was claimed, which also knows whether it was cancelled."""
        job = detached({key: self._claimed[key] for key in COLUMNS})
        if self.cancelled:
            tell_to_stop(job)
        return job

    def cancel(self) -> None:
        """Make `job.cancelled()` true, and cancel the task of an interruptible worker, once."""
        if not self.cancelled:
            self.cancelled = True
            tell_to_stop(self.own)
            if self._task is not None:
                self.interrupted = True
                self._task.cancel()

    def interruptible_by(self, task: asyncio.Task[Any] | None) -> None:
        """Set the task that a cancellation of the job cancels; `None` for no task."""
        self._task = task
