"""OpenTelemetry: spans of enqueues and jobs, the instruments, and the ids of traces in logs.

One line switches it on, or `opentelemetry-instrument`, which finds `ObanInstrumentor`::

    from oban_sqla.contrib import opentelemetry

    opentelemetry.attach()

It needs the extra `opentelemetry`. Exporters, samplers and resources are those of the SDK.
"""

from collections.abc import Collection
from datetime import timedelta
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from ..models import validation
from . import json_log, listeners, meter
from .listeners import Listener
from .measurements import Measurements
from .propagation import RELATIONSHIPS, Propagation, Relationship
from .tracing import Tracing, current_ids

_attached: list[Listener] = []
_collectors: list[meter.Collector] = []


def attach(
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    traces: bool = True,
    metrics: bool = True,
    relationship: Relationship = "auto",
    prompt_within: float | timedelta = 60.0,
    fan_out: int = 10,
    baggage: bool = False,
    arguments: bool = False,
) -> None:
    """Trace and measure the enqueues and the jobs of this process, from now on.

    tracer_provider: if not given, the global one.
    meter_provider: if not given, the global one.
    traces: whether to make spans.
    metrics: whether to record into the instruments.
    relationship: how the span of a job relates to the span that enqueued it. `"parent"`: it is a
        child of that. `"link"`: it begins a trace of its own, with a link. `"none"`: neither, and
        nothing is put into `meta`. `"auto"`: a child at the first attempt, if that is prompt;
        retries, late jobs, those of cron, and those of a fan-out have a link.
    prompt_within: seconds, or a `timedelta`, between the enqueue and a prompt start.
    fan_out: beneath one span, jobs beyond so many are a fan-out.
    baggage: whether to carry the baggage, too; it lets workers, and all they call, know it.
    arguments: whether to put the arguments of jobs into their spans.

    `TypeError` or `ValueError`, naming the option and the value, for anything else.
    """
    if relationship not in RELATIONSHIPS:
        raise ValueError(
            f"relationship must be one of {', '.join(RELATIONSHIPS)},"
            f" not {validation.show(relationship)}"
        )
    if not isinstance(fan_out, int) or isinstance(fan_out, bool) or fan_out < 0:
        raise ValueError(
            f"fan_out must be a number of jobs, 0 or more, not {validation.show(fan_out)}"
        )
    within = validation.delay("prompt_within", prompt_within).total_seconds()
    detach()
    if traces:
        propagation = Propagation(
            relationship, prompt_within=within, fan_out=fan_out, baggage=baggage
        )
        tracing = Tracing(tracer_provider, propagation, arguments=arguments)
        _attached.extend(tracing.listeners)
        json_log.correlate(current_ids)
    if metrics:
        collector = meter.collector(meter_provider)
        _collectors.append(collector)
        _attached.extend(Measurements(collector).listeners)
    listeners.attach(_attached)


def is_attached() -> bool:
    """Whether this process is traced or measured."""
    return bool(_attached)


def detach() -> None:
    """Trace and measure nothing."""
    listeners.detach(_attached)
    _attached.clear()
    for collector in _collectors:
        collector.close()
    _collectors.clear()
    json_log.correlate(None)


class ObanInstrumentor(BaseInstrumentor):
    """The same for OpenTelemetry's auto-instrumentation: `ObanInstrumentor().instrument()`.

    It takes the options of `attach`.
    """

    def instrumentation_dependencies(self) -> Collection[str]:
        return ("oban-sqla",)

    def _instrument(self, **options: Any) -> None:
        attach(**options)

    def _uninstrument(self, **options: Any) -> None:
        detach()
