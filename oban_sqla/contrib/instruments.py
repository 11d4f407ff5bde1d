"""The instruments for Prometheus and OpenTelemetry, in one table.

No label has an unbounded number of values, such as ids, keys or arguments.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

LATENCIES = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 1800.0),
)
"""From a millisecond to half an hour."""
SIZES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)


class Kind(StrEnum):
    COUNTER = "counter"
    HISTOGRAM = "histogram"
    GAUGE = "gauge"


@dataclass(frozen=True, slots=True)
class Instrument:
    """An instrument: its name, kind and labels."""

    name: str
    """The name in OpenTelemetry. In Prometheus, it has underscores, the unit, and `_total` if it is
    a counter.
    """
    kind: Kind
    description: str
    labels: tuple[str, ...] = ()
    unit: Literal["s", ""] = ""
    buckets: tuple[float, ...] = ()
    merge: Literal["livesum", "livemax", "livemin", "livemostrecent"] = "livemax"
    """How Prometheus's multiprocess mode merges the gauges of several processes."""

    @property
    def prometheus_name(self) -> str:
        """The name in Prometheus, without the suffix of its kind."""
        name = self.name.replace(".", "_")
        return f"{name}_seconds" if self.unit == "s" else name


def _counter(name: str, description: str, *labels: str) -> Instrument:
    return Instrument(name, Kind.COUNTER, description, labels)


def _latency(name: str, description: str, *labels: str) -> Instrument:
    return Instrument(name, Kind.HISTOGRAM, description, labels, "s", LATENCIES)


def _gauge(
    name: str,
    description: str,
    *labels: str,
    unit: Literal["s", ""] = "",
    merge: Literal["livesum", "livemax", "livemin", "livemostrecent"] = "livemax",
) -> Instrument:
    return Instrument(name, Kind.GAUGE, description, labels, unit, merge=merge)


ENQUEUED = _counter("oban.jobs.enqueued", "Jobs that this process inserted", "queue", "worker")
CONFLICTS = _counter(
    "oban.jobs.conflicts", "Unique jobs that were duplicates of an existing job", "queue"
)
ENQUEUE_DURATION = _latency("oban.enqueue.duration", "Inserting the jobs of a call or a flush")
ENQUEUE_ERRORS = _counter("oban.enqueue.errors", "Calls and flushes whose jobs were not inserted")

FINISHED = _counter(
    "oban.jobs.finished", "Attempts, by the new state of their job", "queue", "worker", "state"
)
DURATION = _latency("oban.job.duration", "Processing a job", "queue", "worker")
QUEUE_TIME = _latency("oban.job.queue_time", "From being due to being claimed", "queue")
LATENESS = _latency("oban.job.lateness", "From being due to being claimed, if scheduled", "queue")

CLAIMED = _counter("oban.jobs.claimed", "Jobs that producers claimed", "queue")
CLAIM_DURATION = _latency("oban.claim.duration", "One statement that claims", "queue")
WRITE_DURATION = _latency(
    "oban.write.duration", "One statement that writes outcomes, for each queue in it"
)
WRITE_SIZE = Instrument(
    "oban.write.size", Kind.HISTOGRAM, "Outcomes of a queue in one statement", buckets=SIZES
)
DROPPED = _counter("oban.outcomes.dropped", "Outcomes of jobs that were deleted or claimed again")
REFUSED = _counter(
    "oban.outcomes.refused",
    "Outcomes that the database refused, so the attempt failed",
    "queue",
)
DELAYED = _counter("oban.outcomes.delayed", "Outcomes that could not be written at once", "queue")
STAGED = _counter("oban.jobs.staged", "Scheduled and retryable jobs that were made available")
STAGE_DURATION = _latency("oban.stage.duration", "One pass of the stager")
GIVEN_BACK = _counter("oban.jobs.given_back", "Claimed jobs that went back to their queue", "queue")
RESCUED = _counter("oban.jobs.rescued", "Jobs of dead nodes, by their new state", "state")
PRUNED = _counter("oban.jobs.pruned", "Jobs that were deleted after their retention")
CRON_ENQUEUED = _counter("oban.cron.enqueued", "Jobs that cron enqueued")
OUTAGES = _counter("oban.service.outages", "How often a service began to fail", "service")
NOTIFIER_LOSSES = _counter("oban.notifier.losses", "How often LISTEN stopped working")

LIMIT = _gauge(
    "oban.queue.limit", "The most jobs that run at once", "oban", "queue", merge="livesum"
)
EXECUTING = _gauge("oban.queue.executing", "Jobs that run", "oban", "queue", merge="livesum")
PAUSED = _gauge("oban.queue.paused", "Whether the queue is paused on this node", "oban", "queue")
HELD = _gauge(
    "oban.queue.held", "Claimed jobs that wait for their turn", "oban", "queue", merge="livesum"
)
WAITING = _gauge(
    "oban.outcomes.waiting", "Outcomes that wait to be written", "oban", merge="livesum"
)
LEADER = _gauge("oban.leader", "Whether this node is the leader", "oban")
LISTENING = _gauge("oban.notifier.listening", "Whether LISTEN works", "oban", merge="livemin")
HEARTBEAT_AGE = _gauge(
    "oban.heartbeat.age", "Time since this node's last heartbeat", "oban", unit="s"
)
RETRIES = _gauge("oban.service.retries", "The most failed passes in a row of any service", "oban")

JOBS = _gauge(
    "oban.jobs",
    "Jobs in the table, as the leader counts them; an estimate beyond 50,000",
    *("oban", "queue", "state"),
    merge="livemostrecent",
)
ESTIMATED = _gauge(
    "oban.jobs.estimated",
    "Whether any of these counts is an estimate",
    "oban",
    merge="livemostrecent",
)
OLDEST_AVAILABLE = _gauge(
    "oban.queue.oldest_available",
    "Time for which the oldest available job of a queue has been due, as the leader sees it",
    *("oban", "queue"),
    unit="s",
    merge="livemostrecent",
)
PROBLEMS = _gauge(
    "oban.doctor.problems",
    "Problems that the doctor finds, as run by the leader",
    *("oban", "check"),
    merge="livemostrecent",
)

EVERY = tuple(one for one in vars().copy().values() if isinstance(one, Instrument))
GAUGES = tuple(one for one in EVERY if one.kind is Kind.GAUGE)
