"""Telemetry: the events that oban_sqla emits, through SQLAlchemy's event system.

Listen on the class for every instance, or on one instance::

    @event.listens_for(Oban, "job_stop")
    def on_stop(oban: Oban, stop: JobStop) -> None: ...

A listener of an instance runs on its event loop, between the steps of a queue, and must not block.

Sessions and connections enqueue without an instance, so the events of enqueueing have another
target, `Enqueueing`. Their listeners run in the thread that enqueues::

    @event.listens_for(Enqueueing, "enqueue_stop")
    def on_stop(enqueueing: Enqueueing, stop: EnqueueStop) -> None: ...

If a listener raises an error, the error is logged once. The emitter goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import event

if TYPE_CHECKING:
    from .models import Job, JobState

_logger = logging.getLogger("oban_sqla.events")

# The listeners whose error was logged, by event and `id()`: a listener may be unhashable.
_complained: dict[tuple[str, int], object] = {}


@dataclass(frozen=True, slots=True, eq=False)
class EnqueueStart:
    jobs: Sequence[Job]
    """The new jobs of one flush or one call. A listener may replace their `meta`."""


@dataclass(frozen=True, slots=True, eq=False)
class EnqueueStop:
    start: EnqueueStart
    """The object that `enqueue_start` passed."""
    duration: float
    """Seconds from start to end. For a flush, they include the rows that it wrote before."""
    error: BaseException | None
    """Why the jobs were not inserted; `None` if they were, in a transaction that is still open."""


@dataclass(frozen=True, slots=True)
class JobStart:
    job: Job


@dataclass(frozen=True, slots=True)
class JobStop:
    job: Job
    state: JobState
    """`completed`, `cancelled`, or `scheduled` for a snooze."""
    duration: float
    """Seconds from start to end."""
    queue_time: float
    """Seconds from when the job was due to its start. The database's clock counts to the claim."""


@dataclass(frozen=True, slots=True)
class JobException:
    job: Job
    state: JobState
    """`retryable`, `discarded`, or `cancelled` if the job was cancelled meanwhile."""
    duration: float
    queue_time: float
    error: BaseException


@dataclass(frozen=True, slots=True)
class BackoffFailed:
    job: Job
    delay: float
    """Seconds until the next attempt, by the default backoff."""
    error: BaseException
    """The error that the worker's `backoff()` raised, or the mistake in its return value."""


@dataclass(frozen=True, slots=True)
class JobDeadlineMissed:
    job: Job
    deadline: datetime
    """The instant, in UTC, by which the first attempt had to begin."""


@dataclass(frozen=True, slots=True)
class JobDropped:
    job: Job
    duration: float
    queue_time: float


@dataclass(frozen=True, slots=True)
class JobLeftBehind:
    job: Job
    """A job that timed out or was cancelled, but whose thread or task still runs."""
    count: int
    """How many places of the queue on this node such jobs take, including this job."""


@dataclass(frozen=True, slots=True)
class ClaimStop:
    queue: str
    count: int
    discarded: tuple[int, ...]
    """Ids of jobs that were discarded now, since they had no attempt left."""
    duration: float


@dataclass(frozen=True, slots=True)
class AckStop:
    queue: str
    count: int
    dropped: tuple[int, ...]
    """Ids of jobs that were deleted or claimed again meanwhile: their outcomes do not apply."""
    duration: float


@dataclass(frozen=True, slots=True)
class OutcomeRefused:
    queue: str
    id: int
    """The job whose outcome the database refused. Its attempt is recorded as failed."""
    error: BaseException


@dataclass(frozen=True, slots=True)
class OutcomeDelayed:
    queue: str
    id: int
    """The job whose outcome can't be written now. The outbox tries again until it succeeds."""
    reason: str


@dataclass(frozen=True, slots=True)
class StageStop:
    count: int
    queues: tuple[str, ...]
    duration: float


@dataclass(frozen=True, slots=True)
class GiveBackStop:
    queue: str
    ids: tuple[int, ...]
    """Jobs that this node had claimed and won't finish. They are available; no attempt is spent."""
    held: tuple[int, ...] = ()
    """The ids among `ids` of jobs that had not started."""


@dataclass(frozen=True, slots=True)
class WorkflowStop:
    id: str
    name: str | None
    state: str
    """`completed`, `discarded` or `cancelled`."""


@dataclass(frozen=True, slots=True)
class RescueStop:
    rescued: tuple[int, ...]
    """Orphans that are available again."""
    discarded: tuple[int, ...]
    """Orphans that had no attempt left."""
    cancelled: tuple[int, ...]
    """Orphans that had been cancelled while they ran."""
    duration: float


@dataclass(frozen=True, slots=True)
class PruneStop:
    count: int
    duration: float


@dataclass(frozen=True, slots=True)
class PruneRefused:
    state: JobState
    ids: tuple[int, ...]
    """Jobs past their retention that the server refuses to delete. Other jobs are deleted."""
    error: BaseException
    """The server's error for the first of these jobs, for example of a foreign key."""


@dataclass(frozen=True, slots=True)
class CronStop:
    count: int
    """The number of jobs that were enqueued."""
    queues: tuple[str, ...]
    duration: float


@dataclass(frozen=True, slots=True)
class ElectStop:
    leader: bool
    """Whether this node holds the lease after the election."""
    changed: bool
    """Whether the node became the leader, or lost the lease, in this election."""
    duration: float


@dataclass(frozen=True, slots=True)
class JobsCounted:
    counts: Mapping[tuple[str, str], int]
    """The number of jobs by queue and state."""
    estimated: bool
    """Whether any of these numbers is an estimate of the planner."""
    oldest_available: Mapping[str, float]
    """For how many seconds the oldest available job has been due, by queue."""
    duration: float


@dataclass(frozen=True, slots=True)
class DoctorStop:
    problems: Mapping[str, int]
    """The number of problems that the doctor found, by check."""
    duration: float


@dataclass(frozen=True, slots=True)
class QueuePaused:
    queue: str


@dataclass(frozen=True, slots=True)
class QueueResumed:
    queue: str


@dataclass(frozen=True, slots=True)
class NotifierLost:
    reason: str
    """Why LISTEN does not work. The queues poll until it works."""
    error: BaseException | None = None
    direct: bool = False
    """Whether `listen_dsn` connects LISTEN to another address than the engine's."""


@dataclass(frozen=True, slots=True)
class NotifierRestored:
    pass


@dataclass(frozen=True, slots=True)
class PoolTooSmall:
    size: int
    """The most connections that the engine's pool opens."""
    needed: int
    """The connections that the node and its jobs with a session may use at once."""


@dataclass(frozen=True, slots=True)
class WorkersUnfinished:
    workers: tuple[str, ...]
    """The classes that inherit from `Worker` and have no method `process`."""


@dataclass(frozen=True, slots=True)
class JobUnconnected:
    job: Job
    delay: float
    """Seconds until the job is tried again; the attempt is not spent."""
    error: BaseException
    """Why the session of the worker got no connection."""


@dataclass(frozen=True, slots=True)
class DashboardAction:
    user: str | None
    """The user that the dashboard's `authorize` returned; "loopback" without `authorize`."""
    action: str
    """For example `retry_jobs`, `edit_job`, `pause_queue` or `run_cron`."""
    target: str
    """The jobs, the queue or the worker. For many jobs, the search that found them."""
    count: int
    """How many jobs or queues were changed."""


@dataclass(frozen=True, slots=True)
class ServiceFailed:
    service: str
    error: BaseException
    """Why a pass of the service failed. The service tries again, with growing delays."""


@dataclass(frozen=True, slots=True)
class ServiceRestored:
    service: str


@dataclass(frozen=True, slots=True)
class ServiceCancelled:
    service: str
    """The service that did not stop by itself within its grace period."""
    grace: float


class Observable(event.EventTarget):
    """The target of the events: the base class of `Oban`."""

    dispatch: event.dispatcher[Observable]


class ObanEvents(event.Events[Observable]):
    """Every event passes the instance and one object with its data."""

    _target_class_doc = "Oban"
    _dispatch_target = Observable

    def job_start(self, oban: Any, start: JobStart) -> None:
        """A claimed job starts: its worker is about to be called."""

    def job_stop(self, oban: Any, stop: JobStop) -> None:
        """A worker returned; the outcome is not yet acknowledged."""

    def job_exception(self, oban: Any, exception: JobException) -> None:
        """A worker raised; the outcome is not yet acknowledged."""

    def job_deadline_missed(self, oban: Any, missed: JobDeadlineMissed) -> None:
        """A claimed job is cancelled, and does not start, since its deadline has passed."""

    def job_dropped(self, oban: Any, dropped: JobDropped) -> None:
        """An attempt ended without an outcome that counts.

        Either a stop cut the attempt short, or its session got no connection, and the job goes
        back. Or another node has claimed the job meanwhile. Each `job_start` is followed by this
        event, `job_stop` or `job_exception`.
        """

    def job_left_behind(self, oban: Any, left: JobLeftBehind) -> None:
        """A job ended, but its thread or task still runs, and takes a place of the queue."""

    def claim_stop(self, oban: Any, stop: ClaimStop) -> None:
        """A producer claimed jobs, or looked and found none."""

    def ack_stop(self, oban: Any, stop: AckStop) -> None:
        """The outbox wrote outcomes of a queue."""

    def outcome_refused(self, oban: Any, refused: OutcomeRefused) -> None:
        """The database refused an outcome, so the attempt failed."""

    def outcome_delayed(self, oban: Any, delayed: OutcomeDelayed) -> None:
        """An outcome can't be written now, for example because its job is locked.

        Emitted once for each outcome.
        """

    def stage_stop(self, oban: Any, stop: StageStop) -> None:
        """The stager made a pass."""

    def give_back_stop(self, oban: Any, stop: GiveBackStop) -> None:
        """Claimed jobs went back to their queue."""

    def workflow_stop(self, oban: Any, stop: WorkflowStop) -> None:
        """All steps of a workflow have ended; on the node that wrote the last outcome."""

    def rescue_stop(self, oban: Any, stop: RescueStop) -> None:
        """The leader's lifeline made a pass."""

    def prune_stop(self, oban: Any, stop: PruneStop) -> None:
        """The leader's pruner made a pass."""

    def prune_refused(self, oban: Any, refused: PruneRefused) -> None:
        """The leader's pruner could not delete some jobs; each job is named once."""

    def cron_stop(self, oban: Any, stop: CronStop) -> None:
        """The leader's cron made a pass."""

    def elect_stop(self, oban: Any, stop: ElectStop) -> None:
        """This node tried to become the leader, or to renew its lease."""

    def jobs_counted(self, oban: Any, counted: JobsCounted) -> None:
        """The leader counted the jobs in the table. It does so only for listeners of this event."""

    def doctor_stop(self, oban: Any, stop: DoctorStop) -> None:
        """The leader ran the doctor. It does so only on a node that serves metrics."""

    def queue_paused(self, oban: Any, paused: QueuePaused) -> None:
        """A queue of this node was paused, and claims no more jobs."""

    def queue_resumed(self, oban: Any, resumed: QueueResumed) -> None:
        """A queue of this node was resumed, and claims jobs again."""

    def notifier_lost(self, oban: Any, lost: NotifierLost) -> None:
        """LISTEN stopped working."""

    def notifier_restored(self, oban: Any, restored: NotifierRestored) -> None:
        """LISTEN works again."""

    def pool_too_small(self, oban: Any, pool: PoolTooSmall) -> None:
        """A node starts, and its jobs may use more connections than its engine's pool has."""

    def workers_unfinished(self, oban: Any, unfinished: WorkersUnfinished) -> None:
        """A node starts, and some of the imported workers can't process jobs."""

    def backoff_failed(self, oban: Any, failed: BackoffFailed) -> None:
        """The `backoff()` of a worker failed, so the default backoff applies."""

    def job_unconnected(self, oban: Any, unconnected: JobUnconnected) -> None:
        """The session of a worker got no connection. The job goes back; no attempt is spent."""

    def dashboard_action(self, oban: Any, action: DashboardAction) -> None:
        """A user of the dashboard changed jobs or queues."""

    def service_failed(self, oban: Any, failed: ServiceFailed) -> None:
        """A service began to fail. Emitted once for an outage, not for each try."""

    def service_restored(self, oban: Any, restored: ServiceRestored) -> None:
        """A service that had failed works again."""

    def service_cancelled(self, oban: Any, cancelled: ServiceCancelled) -> None:
        """A service did not stop in time, and was cancelled."""


class Enqueueing(event.EventTarget):
    """The target of the events of enqueueing, for every kind of `conn`."""

    dispatch: event.dispatcher[Enqueueing]


class EnqueueEvents(event.Events[Enqueueing]):
    """Every event passes its target and one object with its data."""

    _target_class_doc = "Enqueueing"
    _dispatch_target = Enqueueing

    def enqueue_start(self, enqueueing: Any, start: EnqueueStart) -> None:
        """Jobs are about to be inserted."""

    def enqueue_stop(self, enqueueing: Any, stop: EnqueueStop) -> None:
        """Jobs were inserted, or could not be inserted. This follows each `enqueue_start`."""


enqueueing = Enqueueing()
"""The only instance of `Enqueueing`."""


def listened(target: Observable | Enqueueing, *names: str) -> bool:
    """Whether one of these events has a listener."""
    return any(getattr(target.dispatch, name) for name in names)


def emit(target: Observable | Enqueueing, name: str, data: object) -> None:
    """Call the listeners of an event. Errors of a listener are logged, not raised."""
    listeners = getattr(target.dispatch, name)
    if not listeners:
        return
    # A copy, since a listener may remove itself.
    for listener in tuple(listeners):
        try:
            listener(target, data)
        except BaseException:
            # Also SystemExit: it would keep the emitter from recording the outcome of a job.
            _complain(name, listener)


def _complain(name: str, listener: Callable[..., None]) -> None:
    """Log the current exception, once for each listener: a listener may fail for every job."""
    told = (name, id(listener)) in _complained
    # Keeps the listener alive, so that no other listener gets the same `id()`.
    _complained[name, id(listener)] = listener
    _logger.log(
        logging.DEBUG if told else logging.ERROR,
        "a listener of %r raised: %r; further errors of it are logged at DEBUG",
        name,
        listener,
        exc_info=True,
    )
