"""The data that events pass to their listeners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..models import Job, JobState


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
    """Seconds from when the job was due to its start; up to the claim by the database's clock."""


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
    """How many slots of the queue on this node such jobs take, including this job."""


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
class MoveRefused:
    id: int
    """The job that the database refuses to move. Other jobs are moved; it is tried again later."""
    move: str
    """The refused move: "claim", "stage", "give back" or "rescue"."""
    error: BaseException
    """The server's error, for example of a trigger or a constraint."""


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
