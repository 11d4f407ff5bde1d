"""Traces of a whole process, sent by OTLP over HTTP as the variables `OTEL_*` say."""

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
"""The name of the service, unless `OTEL_SERVICE_NAME` is another."""
FAREWELL = 5.0
"""Seconds that the last spans have, to be sent in the end."""


@contextmanager
def tracing() -> Iterator[None]:
    """Trace for a block, the spans of the user's own too.

    What set up OpenTelemetry before, such as `opentelemetry-instrument`, has its way.
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
        # The SDK waits longer for a collector that is down than a stop may take.
        end = threading.Thread(target=provider.shutdown, name="oban-spans", daemon=True)
        end.start()
        end.join(FAREWELL)


def _resource() -> Resource:
    resource = Resource.create()
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: SERVICE}))
    return resource
