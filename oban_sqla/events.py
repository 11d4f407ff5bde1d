"""Telemetry: what happens, as events of SQLAlchemy's own event system.

Listen on the class for every instance, or on one instance::

    @event.listens_for(Oban, "job_stop")
    def on_stop(oban: Oban, stop: JobStop) -> None: ...

A listener of an instance runs on its event loop, between the steps of a queue: it must not block.

Sessions and connections enqueue without an instance, so the events of enqueueing have a target of
their own. Their listeners run in the thread that enqueues::

    @event.listens_for(Enqueueing, "enqueue_stop")
    def on_stop(enqueueing: Enqueueing, stop: EnqueueStop) -> None: ...

What a listener raises is logged once, and reaches nobody else.
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

# The listeners whose error was logged, by event and identity: a listener may be unhashable.
_complained: dict[tuple[str, int], object] = {}


@dataclass(frozen=True, slots=True, eq=False)
class EnqueueStart:
    jobs: Sequence[Job]
    """New jobs, all those of one flush or one call. A listener may replace their `meta`."""


@dataclass(frozen=True, slots=True, eq=False)
class EnqueueStop:
    start: EnqueueStart
    """The very object that `enqueue_start` passed."""
    duration: float
    """Seconds from start to end; of a flush, with the rows that it had to write before the jobs."""
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
    """Seconds from being due to the start: by the database's clock until the claim."""


@dataclass(frozen=True, slots=True)
class JobException:
    job: Job
    state: JobState
    """`retryable`, `discarded`, or `cancelled` if somebody wanted that meanwhile."""
    duration: float
    queue_time: float
    error: BaseException


@dataclass(frozen=True, slots=True)
class BackoffFailed:
    job: Job
    delay: float
    """Seconds until the next attempt, by the default backoff."""
    error: BaseException
    """What `backoff()` of the worker raised, or what is wrong with the value it returned."""


@dataclass(frozen=True, slots=True)
class JobDeadlineMissed:
    job: Job
    deadline: datetime
    """The instant, in UTC, by which its first attempt had to begin."""


@dataclass(frozen=True, slots=True)
class JobDropped:
    job: Job
    duration: float
    queue_time: float


@dataclass(frozen=True, slots=True)
class JobLeftBehind:
    job: Job
    """A job that timed out or was cancelled, while its thread, or its task, goes on."""
    count: int
    """How many places of its queue on this node are taken so, with this one."""


@dataclass(frozen=True, slots=True)
class ClaimStop:
    queue: str
    count: int
    discarded: tuple[int, ...]
    """Ids of jobs that were available with no attempt left, and are discarded now."""
    duration: float


@dataclass(frozen=True, slots=True)
class AckStop:
    queue: str
    count: int
    dropped: tuple[int, ...]
    """Ids of jobs that were deleted or claimed anew meanwhile: their outcome does not apply."""
    duration: float


@dataclass(frozen=True, slots=True)
class OutcomeRefused:
    queue: str
    id: int
    """The job whose outcome the database refused; its attempt failed for that."""
    error: BaseException


@dataclass(frozen=True, slots=True)
class OutcomeDelayed:
    queue: str
    id: int
    """The job whose outcome can't be written for now. It is tried again, without end."""
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
    """Jobs that this node had claimed and will not finish: available again, attempt not spent."""
    held: tuple[int, ...] = ()
    """Those of them that had not started."""


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
    """Jobs past their retention that the server refuses to delete. The others are deleted."""
    error: BaseException
    """Why the server refused the first of them, such as a foreign key or a trigger."""


@dataclass(frozen=True, slots=True)
class CronStop:
    count: int
    """Jobs that were enqueued for ticks."""
    queues: tuple[str, ...]
    duration: float


@dataclass(frozen=True, slots=True)
class ElectStop:
    leader: bool
    """Whether this node holds the lease after the election."""
    changed: bool
    """Whether that is different from before."""
    duration: float


@dataclass(frozen=True, slots=True)
class JobsCounted:
    counts: Mapping[tuple[str, str], int]
    """How many jobs there are, by queue and state."""
    estimated: bool
    """Whether the planner guessed any of these numbers."""
    oldest_available: Mapping[str, float]
    """By queue, the seconds since its oldest available job has been so."""
    duration: float


@dataclass(frozen=True, slots=True)
class DoctorStop:
    problems: Mapping[str, int]
    """By check, how many problems the doctor found."""
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
    """LISTEN does not work (any more): the queues poll until it does."""
    error: BaseException | None = None
    direct: bool = False
    """Whether LISTEN has a connection to another address than the engine's, by `listen_dsn`."""


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
    """Why the session of its worker got no connection."""


@dataclass(frozen=True, slots=True)
class DashboardAction:
    user: str | None
    """Who did it, as the dashboard's `authorize` says; "loopback" without `authorize`."""
    action: str
    """Such as `retry_jobs`, `edit_job`, `pause_queue` or `run_cron`."""
    target: str
    """The jobs, the queue or the worker; of many jobs, the search that found them."""
    count: int
    """How many jobs or queues were changed."""


@dataclass(frozen=True, slots=True)
class ServiceFailed:
    service: str
    error: BaseException
    """Why a pass of the service failed. It is repeated, with a growing delay, without end."""


@dataclass(frozen=True, slots=True)
class ServiceRestored:
    service: str


@dataclass(frozen=True, slots=True)
class ServiceCancelled:
    service: str
    """The service that did not stop by itself within its grace period."""
    grace: float


class Observable(event.EventTarget):
    """What emits the events: `Oban` is one."""

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

        A stop cut it short, or it got no connection, and its job goes back; or its job is
        somebody else's by now. This, `job_stop` or `job_exception` follows each `job_start`.
        """

    def job_left_behind(self, oban: Any, left: JobLeftBehind) -> None:
        """A job ended, but not its thread or task, which takes a place of the queue until then."""

    def claim_stop(self, oban: Any, stop: ClaimStop) -> None:
        """A producer claimed jobs (none, too, when it looked in vain)."""

    def ack_stop(self, oban: Any, stop: AckStop) -> None:
        """Outcomes of a queue were written."""

    def outcome_refused(self, oban: Any, refused: OutcomeRefused) -> None:
        """The database refused an outcome, so that the attempt failed."""

    def outcome_delayed(self, oban: Any, delayed: OutcomeDelayed) -> None:
        """An outcome waits for a lock, or is refused whatever it says: once for an outcome."""

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
        """This node tried to become the leader, or to stay it."""

    def jobs_counted(self, oban: Any, counted: JobsCounted) -> None:
        """The leader counted the jobs in the table; it does so only while somebody listens."""

    def doctor_stop(self, oban: Any, stop: DoctorStop) -> None:
        """The leader had the doctor look, as it does where metrics are served."""

    def queue_paused(self, oban: Any, paused: QueuePaused) -> None:
        """A queue of this node claims no more jobs."""

    def queue_resumed(self, oban: Any, resumed: QueueResumed) -> None:
        """A queue of this node claims jobs again."""

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
        """The session of a worker got no connection: the job goes back, its attempt not spent."""

    def dashboard_action(self, oban: Any, action: DashboardAction) -> None:
        """Somebody changed something in the dashboard."""

    def service_failed(self, oban: Any, failed: ServiceFailed) -> None:
        """A loop began to fail: once for an outage, not once for each try."""

    def service_restored(self, oban: Any, restored: ServiceRestored) -> None:
        """A loop that had failed made a pass again."""

    def service_cancelled(self, oban: Any, cancelled: ServiceCancelled) -> None:
        """A loop had to be cancelled to stop."""


class Enqueueing(event.EventTarget):
    """What emits the events of enqueueing, through whatever `conn`."""

    dispatch: event.dispatcher[Enqueueing]


class EnqueueEvents(event.Events[Enqueueing]):
    """Every event passes its target and one object with its data."""

    _target_class_doc = "Enqueueing"
    _dispatch_target = Enqueueing

    def enqueue_start(self, enqueueing: Any, start: EnqueueStart) -> None:
        """Jobs are about to be inserted."""

    def enqueue_stop(self, enqueueing: Any, stop: EnqueueStop) -> None:
        """Jobs were inserted, or could not be; this follows each `enqueue_start`."""


enqueueing = Enqueueing()
"""The one target of that kind."""


def listened(target: Observable | Enqueueing, *names: str) -> bool:
    """Whether anybody listens to one of these events."""
    return any(getattr(target.dispatch, name) for name in names)


def emit(target: Observable | Enqueueing, name: str, data: object) -> None:
    """Call the listeners of one event; what a listener raises ends here."""
    listeners = getattr(target.dispatch, name)
    if not listeners:
        return
    # A copy, as a listener may remove itself.
    for listener in tuple(listeners):
        try:
            listener(target, data)
        except BaseException:
            # A SystemExit, too: the emitter stands between a job and the record of its outcome.
            _complain(name, listener)


def _complain(name: str, listener: Callable[..., None]) -> None:
    """Log the error that is being handled: once for each listener, which may fail for every job."""
    told = (name, id(listener)) in _complained
    # Keep the listener, so that no other one takes over its identity.
    _complained[name, id(listener)] = listener
    _logger.log(
        logging.DEBUG if told else logging.ERROR,
        "a listener of %r raised: %r; further errors of it are logged at DEBUG",
        name,
        listener,
        exc_info=True,
    )
