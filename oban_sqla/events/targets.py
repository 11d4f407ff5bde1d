"""The targets of the events, and the events of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import event

if TYPE_CHECKING:
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
