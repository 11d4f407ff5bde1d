"""Send the traces of a whole process by OTLP over HTTP, configured by the variables `OTEL_*`."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import ProxyTracerProvider, get_tracer_provider, set_tracer_provider

from . import opentelemetry

SERVICE = "oban-sqla"
"""The name of the service, unless `OTEL_SERVICE_NAME` is set."""
STOP_TIMEOUT = 5.0
"""Seconds in which the last spans must be sent at the end."""


@contextmanager
def tracing() -> Iterator[None]:
    """Trace for a block, also the user's own spans.

    If OpenTelemetry is set up already, for example by `opentelemetry-instrument`, its provider is
    used.
    """
    if not isinstance(get_tracer_provider(), ProxyTracerProvider):
        if not opentelemetry.is_attached():
            opentelemetry.attach(metrics=False)
        yield
        return
    provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    set_tracer_provider(provider)
    opentelemetry.attach(metrics=False)
    try:
        yield
    finally:
        opentelemetry.detach()
        # In a thread, since the SDK may wait longer for an unreachable collector.
        end = threading.Thread(target=provider.shutdown, name="oban-spans", daemon=True)
        end.start()
        end.join(STOP_TIMEOUT)


def _resource() -> Resource:
    resource = Resource.create()
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: SERVICE}))
    return resource
