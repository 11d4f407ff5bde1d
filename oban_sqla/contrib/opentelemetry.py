"""OpenTelemetry: spans of enqueues and jobs, metrics, and the ids of traces in logs.

Turn it on with one line, or with `opentelemetry-instrument`, which finds `ObanInstrumentor`::

    from oban_sqla.contrib import opentelemetry

    opentelemetry.attach()

It needs the extra `opentelemetry`. Configure exporters, samplers and resources in the SDK.
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
    """Begin to trace and measure the enqueues and the jobs of this process.

    tracer_provider: the default is the global provider.
    meter_provider: the default is the global provider.
    traces: whether to make spans.
    metrics: whether to record metrics.
    relationship: how the span of a job relates to the span that enqueued the job. `"parent"`: it is
        a child. `"link"`: it begins a new trace with a link. `"none"`: there is no relationship,
        and nothing is put into `meta`. `"auto"`: the first attempt is a child if it is prompt.
        Retries, late jobs, jobs of cron, and jobs of a fan-out have a link.
    prompt_within: an attempt is prompt if it starts within this time after the enqueue: seconds or
        a `timedelta`.
    fan_out: if one span enqueues more jobs than this, the further jobs are a fan-out.
    baggage: whether to also carry the baggage, so that workers and the code they call can read it.
    arguments: whether to put the arguments of jobs into their spans.

    Other values raise a `TypeError` or `ValueError` that names the option and the value.
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
    """Stop all tracing and measuring."""
    listeners.detach(_attached)
    _attached.clear()
    for collector in _collectors:
        collector.close()
    _collectors.clear()
    json_log.correlate(None)


class ObanInstrumentor(BaseInstrumentor):
    """`attach` for OpenTelemetry's auto-instrumentation: `ObanInstrumentor().instrument()`.

    `instrument()` takes the options of `attach`.
    """

    def instrumentation_dependencies(self) -> Collection[str]:
        return ("oban-sqla",)

    def _instrument(self, **options: Any) -> None:
        attach(**options)

    def _uninstrument(self, **options: Any) -> None:
        detach()
