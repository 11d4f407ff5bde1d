"""Listeners that record measurements, for any collector."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from threading import RLock
from typing import Any, NamedTuple, Protocol, TypeAlias

from .. import instances
from ..errors import UnknownWorkerError
from ..events import (
    AckStop,
    ClaimStop,
    CronStop,
    DoctorStop,
    ElectStop,
    Enqueueing,
    EnqueueStop,
    GiveBackStop,
    JobDeadlineMissed,
    JobException,
    JobsCounted,
    JobStop,
    NotifierLost,
    OutcomeDelayed,
    OutcomeRefused,
    PruneStop,
    RescueStop,
    ServiceFailed,
    StageStop,
)
from ..models import JobState
from ..models.instrumentation import values_of
from ..oban import Oban
from . import instruments
from .gauges import Reading, of_node, of_table
from .instruments import Instrument
from .labels import OTHER, UNKNOWN, Labels, Names
from .listeners import Listener

Record: TypeAlias = Callable[[float], None]
"""Adds a value to a counter, or to a histogram."""

Recorder: TypeAlias = Callable[[Labels], Record]
"""An instrument: returns the function that records values with the given labels."""

OUTCOMES = ("completed", "scheduled", "retryable", "discarded", "cancelled")
"""The states of a job after an attempt."""


class _OfJobs(NamedTuple):
    """The functions that record the attempts of the jobs of one queue and worker."""

    duration: Record
    queue_time: Record
    finished: Mapping[str, Record]
    """The functions that count finished attempts, by outcome."""


class Collector(Protocol):
    """A store of instruments: Prometheus's client, or a meter of OpenTelemetry."""

    def counter(self, instrument: Instrument) -> Recorder: ...

    def histogram(self, instrument: Instrument) -> Recorder: ...

    def gauges(self, read: Callable[[], Iterator[Reading]]) -> None:
        """Call `read` for the values of all gauges whenever they are collected."""

    def tick(self) -> None:
        """Write gauges if necessary. Called at some events, at least every few seconds."""


class Measurements:
    """The listeners, and the values of the gauges."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        # Reentrant, since the garbage collector may call code of the user that enqueues.
        self._lock = RLock()
        self._queue, self._worker = Names(), Names()
        self._counted: dict[str, JobsCounted] = {}
        self._of_jobs: dict[tuple[str, str], _OfJobs] = {}
        self._problems: dict[str, DoctorStop] = {}
        self._enqueued = collector.counter(instruments.ENQUEUED)
        self._conflicts = collector.counter(instruments.CONFLICTS)
        self._enqueue_duration = collector.histogram(instruments.ENQUEUE_DURATION)
        self._enqueue_errors = collector.counter(instruments.ENQUEUE_ERRORS)
        self._finished = collector.counter(instruments.FINISHED)
        self._duration = collector.histogram(instruments.DURATION)
        self._queue_time = collector.histogram(instruments.QUEUE_TIME)
        self._lateness = collector.histogram(instruments.LATENESS)
        self._claimed = collector.counter(instruments.CLAIMED)
        self._claim_duration = collector.histogram(instruments.CLAIM_DURATION)
        self._write_duration = collector.histogram(instruments.WRITE_DURATION)
        self._write_size = collector.histogram(instruments.WRITE_SIZE)
        self._dropped = collector.counter(instruments.DROPPED)
        self._refused = collector.counter(instruments.REFUSED)
        self._delayed = collector.counter(instruments.DELAYED)
        self._staged = collector.counter(instruments.STAGED)
        self._stage_duration = collector.histogram(instruments.STAGE_DURATION)
        self._given_back = collector.counter(instruments.GIVEN_BACK)
        self._rescued = collector.counter(instruments.RESCUED)
        self._pruned = collector.counter(instruments.PRUNED)
        self._cron_enqueued = collector.counter(instruments.CRON_ENQUEUED)
        self._outages = collector.counter(instruments.OUTAGES)
        self._notifier_losses = collector.counter(instruments.NOTIFIER_LOSSES)
        collector.gauges(self.readings)

    @property
    def listeners(self) -> Sequence[Listener]:
        listeners: tuple[Listener, ...] = (
            (Enqueueing, "enqueue_stop", self._enqueue_stop),
            (Oban, "job_stop", self._job_stop),
            (Oban, "job_exception", self._job_exception),
            (Oban, "job_deadline_missed", self._job_deadline_missed),
            (Oban, "claim_stop", self._claim_stop),
            (Oban, "ack_stop", self._ack_stop),
            (Oban, "outcome_refused", self._outcome_refused),
            (Oban, "outcome_delayed", self._outcome_delayed),
            (Oban, "stage_stop", self._stage_stop),
            (Oban, "give_back_stop", self._give_back_stop),
            (Oban, "rescue_stop", self._rescue_stop),
            (Oban, "prune_stop", self._prune_stop),
            (Oban, "cron_stop", self._cron_stop),
            (Oban, "service_failed", self._service_failed),
            (Oban, "notifier_lost", self._notifier_lost),
            (Oban, "jobs_counted", self._jobs_counted),
            (Oban, "doctor_stop", self._doctor_stop),
            (Oban, "elect_stop", self._elect_stop),
        )
        return [(target, event, self._one_at_a_time(listen)) for target, event, listen in listeners]

    def _one_at_a_time(self, listen: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
        """A listener that holds the lock: sessions enqueue in any thread."""
        lock = self._lock

        @wraps(listen)
        def locked(target: object, data: object) -> None:
            with lock:
                listen(target, data)

        return locked

    def readings(self) -> Iterator[Reading]:
        """The current values of the gauges."""
        queues: dict[str, list[str]] = {}
        for instance in instances.every():
            if isinstance(instance, Oban) and (vitals := instance.vitals) is not None:
                yield from of_node(instance.name, vitals, self._queue)
                queues[instance.name] = [one.queue for one in vitals.queues]
        for oban, counted in list(self._counted.items()):
            yield from of_table(oban, counted, queues.get(oban, ()), self._queue)
        for oban, stop in list(self._problems.items()):
            for check, count in stop.problems.items():
                yield instruments.PROBLEMS, (oban, check), count

    def _enqueue_stop(self, enqueueing: Enqueueing, stop: EnqueueStop) -> None:
        self._enqueue_duration(())(stop.duration)
        if stop.error is not None:
            self._enqueue_errors(())(1)
            return
        for job in stop.start.jobs:
            if job.conflict:
                self._conflicts((self._queue(job.queue),))(1)
            else:
                self._enqueued((self._queue(job.queue), self._worker(job.worker)))(1)

    def _job_stop(self, oban: Oban, stop: JobStop | JobException) -> None:
        # Bypasses the instrumentation, which takes as long as recording a value.
        job = values_of(stop.job)
        self._attempted(job, job["worker"], stop)

    def _job_exception(self, oban: Oban, exception: JobException) -> None:
        job = values_of(exception.job)
        unknown = isinstance(exception.error, UnknownWorkerError)
        self._attempted(job, UNKNOWN if unknown else job["worker"], exception)

    def _attempted(self, job: Mapping[str, Any], worker: str, stop: JobStop | JobException) -> None:
        queue, queue_time = job["queue"], stop.queue_time
        of_jobs = self._of_jobs.get((queue, worker)) or self._find(queue, worker)
        of_jobs.finished[stop.state](1)
        of_jobs.duration(stop.duration)
        of_jobs.queue_time(queue_time)
        if job["scheduled_at"] > job["inserted_at"]:
            self._lateness((self._queue(queue),))(queue_time)

    def _find(self, queue: str, worker: str) -> _OfJobs:
        of_queue = (self._queue(queue),)
        of_worker = (*of_queue, worker if worker == UNKNOWN else self._worker(worker))
        found = _OfJobs(
            self._duration(of_worker),
            self._queue_time(of_queue),
            {state: self._finished((*of_worker, state)) for state in OUTCOMES},
        )
        for add in found.finished.values():
            # Counters begin at 0, so that the first job of a kind shows as an increase.
            add(0)
        if OTHER not in of_worker:
            # Cached only for names with labels of their own, whose number is limited.
            self._of_jobs[queue, worker] = found
        return found

    def _job_deadline_missed(self, oban: Oban, missed: JobDeadlineMissed) -> None:
        labels = (self._queue(missed.job.queue), self._worker(missed.job.worker))
        self._finished((*labels, JobState.CANCELLED.value))(1)

    def _claim_stop(self, oban: Oban, stop: ClaimStop) -> None:
        labels = (self._queue(stop.queue),)
        self._claim_duration(labels)(stop.duration)
        if stop.count:
            self._claimed(labels)(stop.count)
        if stop.discarded:
            self._finished((*labels, UNKNOWN, JobState.DISCARDED.value))(len(stop.discarded))

    def _ack_stop(self, oban: Oban, stop: AckStop) -> None:
        self._write_duration(())(stop.duration)
        self._write_size(())(stop.count)
        if stop.dropped:
            self._dropped(())(len(stop.dropped))

    def _outcome_refused(self, oban: Oban, refused: OutcomeRefused) -> None:
        self._refused((self._queue(refused.queue),))(1)

    def _outcome_delayed(self, oban: Oban, delayed: OutcomeDelayed) -> None:
        self._delayed((self._queue(delayed.queue),))(1)

    def _stage_stop(self, oban: Oban, stop: StageStop) -> None:
        self._collector.tick()
        self._stage_duration(())(stop.duration)
        if stop.count:
            self._staged(())(stop.count)

    def _give_back_stop(self, oban: Oban, stop: GiveBackStop) -> None:
        self._given_back((self._queue(stop.queue),))(len(stop.ids))

    def _rescue_stop(self, oban: Oban, stop: RescueStop) -> None:
        outcomes = {"available": stop.rescued, "discarded": stop.discarded}
        for state, ids in {**outcomes, "cancelled": stop.cancelled}.items():
            if ids:
                self._rescued((state,))(len(ids))

    def _prune_stop(self, oban: Oban, stop: PruneStop) -> None:
        if stop.count:
            self._pruned(())(stop.count)

    def _cron_stop(self, oban: Oban, stop: CronStop) -> None:
        if stop.count:
            self._cron_enqueued(())(stop.count)

    def _service_failed(self, oban: Oban, failed: ServiceFailed) -> None:
        self._outages((self._queue(failed.service),))(1)

    def _notifier_lost(self, oban: Oban, lost: NotifierLost) -> None:
        self._notifier_losses(())(1)

    def _jobs_counted(self, oban: Oban, counted: JobsCounted) -> None:
        self._counted[oban.name] = counted
        self._collector.tick()

    def _doctor_stop(self, oban: Oban, stop: DoctorStop) -> None:
        self._problems[oban.name] = stop

    def _elect_stop(self, oban: Oban, stop: ElectStop) -> None:
        if not stop.leader:
            self._counted.pop(oban.name, None)
            self._problems.pop(oban.name, None)
        self._collector.tick()
