"""The targets of the events, and the events of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import event

if TYPE_CHECKING:
    from . import data


class Observable(event.EventTarget):
    """The target of the events: the base class of `Oban`."""

    dispatch: event.dispatcher[Observable]


class ObanEvents(event.Events[Observable]):
    """Every event passes the instance and one object with its data."""

    _target_class_doc = "Oban"
    _dispatch_target = Observable

    def job_start(self, oban: Any, start: data.JobStart) -> None:
        """A claimed job starts: its worker is about to be called."""

    def job_stop(self, oban: Any, stop: data.JobStop) -> None:
        """A worker returned; the outcome is not yet acknowledged."""

    def job_exception(self, oban: Any, exception: data.JobException) -> None:
        """A worker raised; the outcome is not yet acknowledged."""

    def job_deadline_missed(self, oban: Any, missed: data.JobDeadlineMissed) -> None:
        """A claimed job is cancelled, and does not start, since its deadline has passed."""

    def job_dropped(self, oban: Any, dropped: data.JobDropped) -> None:
        """An attempt ended without an outcome that counts.

        Either a stop cut the attempt short, or its session got no connection, and the job goes
        back. Or another node has claimed the job meanwhile. Each `job_start` is followed by this
        event, `job_stop` or `job_exception`.
        """

    def job_left_behind(self, oban: Any, left: data.JobLeftBehind) -> None:
        """A job ended, but its thread or task still runs, and takes a slot of the queue."""

    def claim_stop(self, oban: Any, stop: data.ClaimStop) -> None:
        """A producer claimed jobs, or found none."""

    def ack_stop(self, oban: Any, stop: data.AckStop) -> None:
        """The outbox wrote outcomes of a queue."""

    def outcome_refused(self, oban: Any, refused: data.OutcomeRefused) -> None:
        """The database refused an outcome, so the attempt failed."""

    def outcome_delayed(self, oban: Any, delayed: data.OutcomeDelayed) -> None:
        """An outcome can't be written now, for example because its job is locked.

        Emitted once for each outcome.
        """

    def move_refused(self, oban: Any, refused: data.MoveRefused) -> None:
        """The database refuses to claim, stage, give back or rescue a job.

        Emitted once for each job, or again after the job could be moved.
        """

    def stage_stop(self, oban: Any, stop: data.StageStop) -> None:
        """The stager made a pass."""

    def give_back_stop(self, oban: Any, stop: data.GiveBackStop) -> None:
        """Claimed jobs went back to their queue."""

    def workflow_stop(self, oban: Any, stop: data.WorkflowStop) -> None:
        """All steps of a workflow have ended; on the instance that ended the last one.

        If that was a call with a session as `conn`, such as `oban.cancel(flow, conn=session)`, the
        event follows the commit, in the thread that commits. There is no event after a rollback,
        nor if the session has joined a transaction of its connection, which may go on.
        """

    def rescue_stop(self, oban: Any, stop: data.RescueStop) -> None:
        """The leader's lifeline made a pass."""

    def prune_stop(self, oban: Any, stop: data.PruneStop) -> None:
        """The leader's pruner made a pass."""

    def prune_refused(self, oban: Any, refused: data.PruneRefused) -> None:
        """The leader's pruner could not delete some jobs; each job is named once."""

    def cron_stop(self, oban: Any, stop: data.CronStop) -> None:
        """The leader's cron made a pass."""

    def elect_stop(self, oban: Any, stop: data.ElectStop) -> None:
        """This node tried to become the leader, or to renew its lease."""

    def jobs_counted(self, oban: Any, counted: data.JobsCounted) -> None:
        """The leader counted the jobs in the table. It does so only for listeners of this event."""

    def doctor_stop(self, oban: Any, stop: data.DoctorStop) -> None:
        """The leader ran the doctor. It does so only on a node that serves metrics."""

    def queue_paused(self, oban: Any, paused: data.QueuePaused) -> None:
        """A queue of this node was paused, and claims no more jobs."""

    def queue_resumed(self, oban: Any, resumed: data.QueueResumed) -> None:
        """A queue of this node was resumed, and claims jobs again."""

    def notifier_lost(self, oban: Any, lost: data.NotifierLost) -> None:
        """LISTEN stopped working."""

    def notifier_restored(self, oban: Any, restored: data.NotifierRestored) -> None:
        """LISTEN works again."""

    def pool_too_small(self, oban: Any, pool: data.PoolTooSmall) -> None:
        """A node starts, and its jobs may use more connections than its engine's pool has."""

    def workers_unfinished(self, oban: Any, unfinished: data.WorkersUnfinished) -> None:
        """A node starts, and some of the imported workers can't process jobs."""

    def backoff_failed(self, oban: Any, failed: data.BackoffFailed) -> None:
        """The `backoff()` of a worker failed, so the default backoff applies."""

    def job_unconnected(self, oban: Any, unconnected: data.JobUnconnected) -> None:
        """The session of a worker got no connection. The job goes back; no attempt is spent."""

    def dashboard_action(self, oban: Any, action: data.DashboardAction) -> None:
        """A user of the dashboard changed jobs or queues."""

    def service_failed(self, oban: Any, failed: data.ServiceFailed) -> None:
        """A service began to fail. Emitted once for an outage, not for each try."""

    def service_restored(self, oban: Any, restored: data.ServiceRestored) -> None:
        """A service that had failed works again."""

    def service_cancelled(self, oban: Any, cancelled: data.ServiceCancelled) -> None:
        """A service did not stop in time, and was cancelled."""


class Enqueueing(event.EventTarget):
    """The target of the events of enqueueing, for every kind of `conn`."""

    dispatch: event.dispatcher[Enqueueing]


class EnqueueEvents(event.Events[Enqueueing]):
    """Every event passes its target and one object with its data."""

    _target_class_doc = "Enqueueing"
    _dispatch_target = Enqueueing

    def enqueue_start(self, enqueueing: Any, start: data.EnqueueStart) -> None:
        """Jobs are about to be inserted."""

    def enqueue_stop(self, enqueueing: Any, stop: data.EnqueueStop) -> None:
        """Jobs were inserted, or could not be inserted. This follows each `enqueue_start`."""


enqueueing = Enqueueing()
"""The only instance of `Enqueueing`."""
