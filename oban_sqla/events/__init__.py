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

from .data import (
    AckStop,
    BackoffFailed,
    ClaimStop,
    CronStop,
    DashboardAction,
    DoctorStop,
    ElectStop,
    EnqueueStart,
    EnqueueStop,
    GiveBackStop,
    JobDeadlineMissed,
    JobDropped,
    JobException,
    JobLeftBehind,
    JobsCounted,
    JobStart,
    JobStop,
    JobUnconnected,
    MoveRefused,
    NotifierLost,
    NotifierRestored,
    OutcomeDelayed,
    OutcomeRefused,
    PoolTooSmall,
    PruneRefused,
    PruneStop,
    QueuePaused,
    QueueResumed,
    RescueStop,
    ServiceCancelled,
    ServiceFailed,
    ServiceRestored,
    StageStop,
    WorkersUnfinished,
    WorkflowStop,
)
from .listeners import emit, listened
from .targets import EnqueueEvents, Enqueueing, ObanEvents, Observable, enqueueing

__all__ = [
    "AckStop",
    "BackoffFailed",
    "ClaimStop",
    "CronStop",
    "DashboardAction",
    "DoctorStop",
    "ElectStop",
    "EnqueueEvents",
    "EnqueueStart",
    "EnqueueStop",
    "Enqueueing",
    "GiveBackStop",
    "JobDeadlineMissed",
    "JobDropped",
    "JobException",
    "JobLeftBehind",
    "JobStart",
    "JobStop",
    "JobUnconnected",
    "JobsCounted",
    "MoveRefused",
    "NotifierLost",
    "NotifierRestored",
    "ObanEvents",
    "Observable",
    "OutcomeDelayed",
    "OutcomeRefused",
    "PoolTooSmall",
    "PruneRefused",
    "PruneStop",
    "QueuePaused",
    "QueueResumed",
    "RescueStop",
    "ServiceCancelled",
    "ServiceFailed",
    "ServiceRestored",
    "StageStop",
    "WorkersUnfinished",
    "WorkflowStop",
    "emit",
    "enqueueing",
    "listened",
]
