"""B14: the cost of metrics and traces for a node whose jobs do nothing.

The SDK alone has the least cost of a trace: a listener begins one span a job, and ends it at once.
"""

import asyncio
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from sqlalchemy import event

from benchmarks.contestants.oban_sqla import Entrant
from benchmarks.workload import Measured, Results, Target, Workload

ROUNDS = 5
LIMIT = 20
OFF, METRICS, TRACES, SAMPLED = "off", "metrics", "traces", "1 % of traces"
SDK, SDK_SAMPLED = "traces by the SDK alone", "1 % of traces by the SDK alone"

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

# A parent package comes before its modules.
_NEEDED = ("prometheus_client", "opentelemetry", "opentelemetry.exporter", "opentelemetry.sdk")

Switch = Callable[[], AbstractContextManager[None]]


@contextmanager
def metrics() -> Iterator[None]:
    from prometheus_client import CollectorRegistry

    from oban_sqla.contrib import prometheus

    prometheus.attach(CollectorRegistry())
    yield
    prometheus.detach()


@contextmanager
def traces(port: int, ratio: float) -> Iterator[None]:
    """Send a share of the traces."""
    from oban_sqla.contrib import opentelemetry

    with exporting(port, ratio) as provider:
        opentelemetry.attach(tracer_provider=provider, metrics=False)
        yield
        opentelemetry.detach()


@contextmanager
def spans_alone(port: int, ratio: float) -> Iterator[None]:
    """Send a share of the spans, with the same attributes for each job, and without a context."""
    from opentelemetry.trace import SpanKind

    from oban_sqla import Oban

    attributes: dict[str, Any] = {
        "messaging.system": "oban",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "default",
        "messaging.message.id": "1",
        "oban.job.worker": "benchmarks.nothing",
        "oban.job.attempt": 1,
    }
    with exporting(port, ratio) as provider:
        tracer = provider.get_tracer("benchmarks")

        def job_start(oban: Oban, start: object) -> None:
            kind = SpanKind.CONSUMER
            tracer.start_span("process default", kind=kind, attributes=attributes).end()

        event.listen(Oban, "job_start", job_start)
        yield
        event.remove(Oban, "job_start", job_start)


@contextmanager
def exporting(port: int, ratio: float) -> "Iterator[TracerProvider]":
    """A provider that samples a share of the traces, and sends them in the batches of the SDK."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

    provider = TracerProvider(sampler=TraceIdRatioBased(ratio), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(f"http://127.0.0.1:{port}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    yield provider
    provider.shutdown()


async def telemetry(contestant: Entrant, count: int) -> Measured:
    collector = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.children.collector", stdout=asyncio.subprocess.PIPE
    )
    assert collector.stdout is not None
    port = int(await collector.stdout.readline())
    switches: Mapping[str, Switch] = {
        OFF: nullcontext,
        METRICS: metrics,
        TRACES: lambda: traces(port, 1.0),
        SAMPLED: lambda: traces(port, 0.01),
        SDK: lambda: spans_alone(port, 1.0),
        SDK_SAMPLED: lambda: spans_alone(port, 0.01),
    }
    rates: dict[str, list[float]] = {name: [] for name in switches}
    try:
        for _ in range(ROUNDS):
            # The switches take turns, so that other load on the machine affects all of them.
            for name, switch in switches.items():
                await contestant.enqueue_many(count)
                with switch():
                    started = time.perf_counter()
                    await contestant.drain(count, LIMIT)
                    rates[name].append(count / (time.perf_counter() - started))
    finally:
        collector.kill()
        await collector.wait()
    await contestant.expect(contestant.waiting, 0)
    return Measured({f"{name}, jobs/s": statistics.median(own) for name, own in rates.items()})


def _share(name: str) -> Callable[[Results], float]:
    return lambda results: (
        results.median("B14", f"{name}, jobs/s") / results.median("B14", f"{OFF}, jobs/s")
    )


WORKLOADS: tuple[Workload, ...] = (
    Workload(
        "B14",
        "run {count} jobs that do nothing, 20 at once, with metrics and with traces",
        Entrant,
        telemetry,
        10_000,
        (
            Target("with metrics: at least 0.93 times the rate without", _share(METRICS), 0.93),
            Target("with all traces: at least 0.7 times the rate without", _share(TRACES), 0.7),
            Target(
                "with 1 % of the traces: at least 0.9 times the rate without", _share(SAMPLED), 0.9
            ),
        ),
        most_runs=1,
    ),
)
"""Empty if the extras are not installed."""
if not all(map(find_spec, _NEEDED)):
    WORKLOADS = ()
