"""The instruments are the same through Prometheus and through OpenTelemetry."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from oban_sqla import Job, Oban, Snooze, Unique, Worker
from oban_sqla.contrib import instruments, labels, multiprocess, opentelemetry, prometheus
from oban_sqla.contrib.instruments import Instrument, Kind
from oban_sqla.contrib.measurements import Measurements, Recorder
from oban_sqla.events import (
    AckStop,
    CronStop,
    DoctorStop,
    ElectStop,
    EnqueueStart,
    EnqueueStop,
    GiveBackStop,
    JobDeadlineMissed,
    JobsCounted,
    NotifierLost,
    OutcomeDelayed,
    OutcomeRefused,
    PruneStop,
    RescueStop,
    ServiceFailed,
    StageStop,
    emit,
    enqueueing,
)
from tests.conftest import StartOban, Tune
from tests.forked import Python
from tests.listening import hear

Read: TypeAlias = Callable[..., float | None]
"""The value of an instrument with labels; for a histogram, the number of its values."""


class Work(Worker, name="tests.metrics.Work", max_attempts=1):
    """A worker that follows the job's arguments."""

    async def process(self, job: Job) -> Any:
        match job.args.get("do"):
            case "raise":
                raise LookupError("no")
            case "snooze" if not job.meta.get("snoozed"):
                return Snooze(0.01)
        return None


@pytest.fixture(params=["prometheus", "opentelemetry"])
def read(request: pytest.FixtureRequest) -> Iterator[Read]:
    if request.param == "prometheus":
        registry = CollectorRegistry()
        prometheus.attach(registry)
        yield lambda instrument, **labels: of_registry(registry, instrument, labels)
        prometheus.detach()
        assert list(registry.collect()) == []
    else:
        reader = InMemoryMetricReader()
        provider = MeterProvider([reader])
        opentelemetry.attach(meter_provider=provider, traces=False)
        yield lambda instrument, **labels: of_reader(reader, instrument, labels)
        opentelemetry.detach()
        provider.shutdown()


def of_registry(
    registry: CollectorRegistry, instrument: Instrument, labels: dict[str, str]
) -> float | None:
    suffix = {Kind.COUNTER: "_total", Kind.HISTOGRAM: "_count", Kind.GAUGE: ""}
    return registry.get_sample_value(instrument.prometheus_name + suffix[instrument.kind], labels)


def of_reader(
    reader: InMemoryMetricReader, instrument: Instrument, labels: dict[str, str]
) -> float | None:
    data = reader.get_metrics_data()
    for resource in data.resource_metrics if data else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    if metric.name == instrument.name and point.attributes == labels:
                        histogram = isinstance(point, HistogramDataPoint)
                        return point.count if histogram else point.value  # type: ignore[union-attr]
    return None


async def test_jobs_are_counted_by_worker_queue_and_outcome(
    read: Read, start: StartOban, caplog: pytest.LogCaptureFixture
) -> None:
    # Without a leader, since workers of other tests have cron entries.
    oban = await start(queues={"default": 5}, leadership=False)
    with hear(oban, "job_stop") as stops, hear(oban, "job_exception") as exceptions:
        await oban.enqueue_many(Work.new({"n": n}) for n in range(3))
        await oban.enqueue_many(Work.new({"do": do}) for do in ("raise", "snooze"))
        await oban.enqueue(Job("tests.metrics.nobody", max_attempts=1))
        await oban.enqueue(Work.new(schedule_in=0.5))
        await stops.wait(6)
        await exceptions.wait(2)
    known = {"queue": "default", "worker": "tests.metrics.Work"}
    assert read(instruments.ENQUEUED, **known) == 6
    assert read(instruments.ENQUEUE_DURATION) == 4
    assert read(instruments.FINISHED, **known, state="completed") == 5
    assert read(instruments.FINISHED, **known, state="discarded") == 1
    assert read(instruments.FINISHED, **known, state="scheduled") == 1
    unknown = {"queue": "default", "worker": "(unknown)", "state": "discarded"}
    assert read(instruments.FINISHED, **unknown) == 1
    assert read(instruments.DURATION, **known) == 7
    assert read(instruments.QUEUE_TIME, queue="default") == 8
    assert read(instruments.LATENESS, queue="default") == 2
    assert read(instruments.CLAIMED, queue="default") == 8
    caplog.clear()


async def test_duplicates_and_failed_enqueues_are_counted(read: Read, engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session, session.begin():
        session.add_all(Work.new({"n": 1}, unique=Unique()) for _ in range(3))
    assert read(instruments.ENQUEUED, queue="default", worker="tests.metrics.Work") == 1
    assert read(instruments.CONFLICTS, queue="default") == 2
    nowhere = engine.execution_options(schema_translate_map={None: "nowhere"})
    async with AsyncSession(nowhere) as session:
        session.add(Work.new())
        with pytest.raises(DBAPIError):
            await session.flush()
    assert read(instruments.ENQUEUE_ERRORS) == 1
    assert read(instruments.ENQUEUED, queue="default", worker="tests.metrics.Work") == 1


@pytest.mark.parametrize(
    ("event", "data", "instrument", "labels", "value"),
    [
        ("ack_stop", AckStop("q", 7, (), 0.1), instruments.WRITE_SIZE, {}, 1),
        ("ack_stop", AckStop("q", 7, (), 0.1), instruments.WRITE_DURATION, {}, 1),
        ("ack_stop", AckStop("q", 0, (1, 2), 0.1), instruments.DROPPED, {}, 2),
        ("stage_stop", StageStop(3, ("q",), 0.1), instruments.STAGED, {}, 3),
        ("stage_stop", StageStop(3, ("q",), 0.1), instruments.STAGE_DURATION, {}, 1),
        ("give_back_stop", GiveBackStop("q", (1, 2)), instruments.GIVEN_BACK, {"queue": "q"}, 2),
        ("prune_stop", PruneStop(5, 0.1), instruments.PRUNED, {}, 5),
        ("cron_stop", CronStop(2, ("q",), 0.1), instruments.CRON_ENQUEUED, {}, 2),
        ("notifier_lost", NotifierLost("cut"), instruments.NOTIFIER_LOSSES, {}, 1),
        (
            "outcome_refused",
            OutcomeRefused("q", 7, ValueError()),
            instruments.REFUSED,
            {"queue": "q"},
            1,
        ),
        (
            "outcome_delayed",
            OutcomeDelayed("q", 7, "locked"),
            instruments.DELAYED,
            {"queue": "q"},
            1,
        ),
        (
            "job_deadline_missed",
            JobDeadlineMissed(Job("a.B", queue="q"), datetime.now(UTC)),
            instruments.FINISHED,
            {"queue": "q", "worker": "a.B", "state": "cancelled"},
            1,
        ),
        (
            "doctor_stop",
            DoctorStop({"leader": 2}, 0.1),
            instruments.PROBLEMS,
            {"oban": "Oban", "check": "leader"},
            2,
        ),
        (
            "rescue_stop",
            RescueStop((1, 2), (3,), (), 0.1),
            instruments.RESCUED,
            {"state": "available"},
            2,
        ),
        (
            "service_failed",
            ServiceFailed("stager", OSError()),
            instruments.OUTAGES,
            {"service": "stager"},
            1,
        ),
    ],
)
async def test_services_have_metrics(
    read: Read,
    engine: AsyncEngine,
    event: str,
    data: object,
    instrument: Instrument,
    labels: dict[str, str],
    value: float,
    caplog: pytest.LogCaptureFixture,
) -> None:
    emit(Oban(engine), event, data)
    assert read(instrument, **labels) == value
    caplog.clear()


async def test_a_node_has_metrics(read: Read, start: StartOban) -> None:
    with hear(Oban, "elect_stop") as elections, hear(Oban, "notifier_restored"):
        oban = await start(queues={"default": 5, "mailers": {"limit": 2, "paused": True}})
        await elections.wait()
    default = {"oban": "Oban", "queue": "default"}
    mailers = {"oban": "Oban", "queue": "mailers"}
    assert (read(instruments.LIMIT, **default), read(instruments.LIMIT, **mailers)) == (5, 2)
    assert (read(instruments.PAUSED, **default), read(instruments.PAUSED, **mailers)) == (0, 1)
    assert (read(instruments.EXECUTING, **default), read(instruments.HELD, **default)) == (0, 0)
    assert read(instruments.WAITING, oban="Oban") == 0
    assert read(instruments.LEADER, oban="Oban") == 1
    assert read(instruments.LISTENING, oban="Oban") in (0, 1)
    assert 0 <= (read(instruments.HEARTBEAT_AGE, oban="Oban") or 0) < 60
    assert read(instruments.RETRIES, oban="Oban") == 0
    await oban.stop()
    assert read(instruments.LIMIT, **default) is None


COUNTED = JobsCounted(
    {("default", "available"): 3, ("mailers", "completed"): 70_000}, True, {"default": 4.5}, 0.1
)


async def test_the_leader_shows_the_table_only_while_it_leads(
    read: Read, engine: AsyncEngine
) -> None:
    oban = Oban(engine)
    emit(oban, "jobs_counted", COUNTED)
    assert read(instruments.JOBS, oban="Oban", queue="default", state="available") == 3
    assert read(instruments.JOBS, oban="Oban", queue="mailers", state="completed") == 70_000
    assert read(instruments.ESTIMATED, oban="Oban") == 1
    assert read(instruments.OLDEST_AVAILABLE, oban="Oban", queue="default") == 4.5
    assert read(instruments.OLDEST_AVAILABLE, oban="Oban", queue="mailers") == 0
    emit(oban, "elect_stop", ElectStop(False, True, 0.1))
    assert read(instruments.JOBS, oban="Oban", queue="default", state="available") is None


async def test_the_number_of_names_in_labels_is_bounded(
    read: Read, engine: AsyncEngine, tune: Tune
) -> None:
    tune(labels, MOST_NAMES=2)
    oban = Oban(engine)
    for queue in ("a", "b", "c", "d", "a"):
        emit(oban, "give_back_stop", GiveBackStop(queue, (1,)))
    counts = [read(instruments.GIVEN_BACK, queue=queue) for queue in ("a", "b", "c", "(other)")]
    assert counts == [2, 1, None, 2]


def test_no_label_has_unbounded_values() -> None:
    bounded = {"queue", "worker", "state", "service", "oban", "check"}
    assert {label for one in instruments.EVERY for label in one.labels} == bounded


def test_prometheus_client_shows_the_same_metrics(engine: AsyncEngine) -> None:
    shown, expected = CollectorRegistry(), CollectorRegistry()
    size = Histogram(
        "oban_write_size", "Outcomes of a queue", registry=expected, buckets=instruments.SIZES
    )
    given_back = Counter("oban_jobs_given_back", "Jobs", ["queue"], registry=expected)
    prometheus.attach(shown)
    for count in (0, 1, 2, 3, 999, 1000, 1001, 5, 5):
        emit(Oban(engine), "ack_stop", AckStop("q", count, (), 0.1))
        size.observe(count)
    for queue in ("a", 'with "quotes"', "a"):
        emit(Oban(engine), "give_back_stop", GiveBackStop(queue, (1, 2)))
        given_back.labels(queue).inc(2)
    samples, wanted = samples_of(shown), samples_of(expected)
    assert len(wanted) == 13 + 2
    assert wanted.items() <= samples.items()
    prometheus.detach()


def samples_of(registry: CollectorRegistry) -> dict[Any, float]:
    """The samples of a scrape by name and labels, without the times of creation."""
    families = text_string_to_metric_families(generate_latest(registry).decode())
    samples = [sample for family in families for sample in family.samples]
    return {
        (sample.name, *sample.labels.items()): sample.value
        for sample in samples
        if not sample.name.endswith("_created")
    }


def test_a_registry_that_has_these_names_refuses_our_metrics() -> None:
    registry = CollectorRegistry()
    theirs = Gauge("oban_leader", "Somebody else's", registry=registry)
    with pytest.raises(ValueError, match="oban_leader"):
        prometheus.attach(registry)
    registry.unregister(theirs)
    prometheus.attach(registry)
    prometheus.detach()


class Forgetful:
    """A collector whose counters lose a value if two threads record at once."""

    def __init__(self) -> None:
        self.totals: dict[str, float] = {}

    def counter(self, instrument: Instrument) -> Recorder:
        def record(value: float) -> None:
            before = self.totals.get(instrument.name, 0)
            time.sleep(0)  # lets another thread run
            self.totals[instrument.name] = before + value

        return lambda labels: record

    histogram = counter

    def gauges(self, read: object) -> None: ...

    def tick(self) -> None: ...


def test_concurrent_enqueues_lose_no_count() -> None:
    collector = Forgetful()
    ((_, _, enqueue_stop), *_) = Measurements(collector).listeners

    def enqueue() -> None:
        for _ in range(100):
            enqueue_stop(enqueueing, EnqueueStop(start, 0.1, None))

    start = EnqueueStart([Work.new(), Work.new()])
    threads = [threading.Thread(target=enqueue) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert collector.totals[instruments.ENQUEUED.name] == 800


UNTOLD = """
from oban_sqla import Oban
from oban_sqla.events import enqueueing, listened

oban = Oban("postgresql://localhost/nowhere")
assert not listened(oban, "jobs_counted", "doctor_stop")
assert not listened(enqueueing, "enqueue_start", "enqueue_stop")
import sys
assert not {"opentelemetry", "prometheus_client", "sentry_sdk"} & sys.modules.keys()
"""


def test_until_it_is_attached_nothing_listens_and_nothing_is_imported() -> None:
    subprocess.run([sys.executable, "-c", UNTOLD], check=True, timeout=60)


PROCESS = """
import sys
from sqlalchemy import create_engine
from oban_sqla import Oban
from oban_sqla.contrib import prometheus
from oban_sqla.events import AckStop, GiveBackStop, JobsCounted, emit

prometheus.attach()
oban = Oban("postgresql://localhost/nowhere")
emit(oban, "give_back_stop", GiveBackStop("default", (1, 2)))
emit(oban, "ack_stop", AckStop("default", 7, (), 0.1))
emit(oban, "jobs_counted", JobsCounted({("default", "available"): 3}, False, {}, 0.1))
if sys.argv[1:]:
    from prometheus_client import generate_latest
    print(generate_latest(prometheus.exposed()).decode())
"""


def test_the_processes_of_a_directory_are_measured_together(python: Python, tmp_path: Path) -> None:
    environment = {**os.environ, multiprocess.DIRECTORY: str(tmp_path)}
    for arguments in ((), ("show",)):
        done = python.run("-c", PROCESS, *arguments, cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stderr
    assert 'oban_jobs_given_back_total{queue="default"} 4.0' in done.stdout
    assert 'oban_write_size_bucket{le="5.0"} 0.0' in done.stdout
    assert 'oban_write_size_bucket{le="10.0"} 2.0' in done.stdout
    assert 'oban_jobs{oban="Oban",queue="default",state="available"} 3.0' in done.stdout
