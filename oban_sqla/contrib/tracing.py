"""Spans of OpenTelemetry: `send` around the insertion of jobs, `process` around each attempt.

Names and attributes are those of the semantic conventions for messaging, and of Oban for Elixir.
"""

import json
from collections.abc import Mapping, Sequence
from contextvars import ContextVar, Token
from typing import Any

from opentelemetry.context import Context, attach, detach, get_value
from opentelemetry.trace import (
    Span,
    SpanKind,
    Status,
    StatusCode,
    TracerProvider,
    get_current_span,
    get_tracer,
    set_span_in_context,
)

from .. import __version__
from ..events import (
    Enqueueing,
    EnqueueStart,
    EnqueueStop,
    JobDropped,
    JobException,
    JobStart,
    JobStop,
)
from ..models import Job, JobState
from ..models.instrumentation import values_of
from ..oban import Oban
from .listeners import Listener
from .propagation import Propagation
from .redaction import parameters_hidden

_SCHEMA = "https://opentelemetry.io/schemas/1.44.0"
# A key that all instrumentations respect. Exporters set it while they send.
_SUPPRESSED = "suppress_instrumentation"

_FAILED = (JobState.RETRYABLE, JobState.DISCARDED)

_Attributes = dict[str, Any]

_PROCESS: _Attributes = {
    "messaging.system": "oban",
    "messaging.operation.name": "process",
    "messaging.operation.type": "process",
}


class Tracing:
    """The listeners that make spans."""

    def __init__(
        self, provider: TracerProvider | None, propagation: Propagation, *, arguments: bool
    ) -> None:
        self._tracer = get_tracer("oban_sqla", __version__, provider, _SCHEMA)
        self._propagation = propagation
        self._arguments = arguments
        self._sending: dict[EnqueueStart, Span] = {}
        # The span of each attempt, in the context of its task.
        self._processing: ContextVar[tuple[Span, Token[Context]] | None] = ContextVar(
            "oban_sqla_span", default=None
        )

    @property
    def listeners(self) -> Sequence[Listener]:
        return (
            (Enqueueing, "enqueue_start", self._enqueue_start),
            (Enqueueing, "enqueue_stop", self._enqueue_stop),
            (Oban, "job_start", self._job_start),
            (Oban, "job_stop", self._job_stop),
            (Oban, "job_exception", self._job_exception),
            (Oban, "job_dropped", self._job_dropped),
        )

    def _enqueue_start(self, enqueueing: Enqueueing, start: EnqueueStart) -> None:
        if get_value(_SUPPRESSED):
            return
        queues = {job.queue for job in start.jobs}
        queue = queues.pop() if len(queues) == 1 else None
        span = self._tracer.start_span(
            "send" if queue is None else f"send {queue}",
            kind=SpanKind.PRODUCER,
            attributes=self._of_sending(start.jobs, queue),
        )
        self._sending[start] = span
        self._propagation.inject(start.jobs, span, get_current_span())

    def _enqueue_stop(self, enqueueing: Enqueueing, stop: EnqueueStop) -> None:
        span = self._sending.pop(stop.start, None)
        if span is None:
            return
        if span.is_recording():
            jobs = stop.start.jobs
            if stop.error is not None:
                # Only the type, since the message may quote the arguments.
                span.set_attribute("error.type", _type(stop.error))
                span.set_status(Status(StatusCode.ERROR, _type(stop.error)))
            else:
                if len(jobs) == 1 and (id := values_of(jobs[0]).get("id")) is not None:
                    span.set_attribute("messaging.message.id", str(id))
                if conflicts := sum(job.conflict for job in jobs):
                    span.set_attribute("oban.job.conflict", conflicts)
        span.end()

    def _job_start(self, oban: Oban, start: JobStart) -> None:
        values = values_of(start.job)
        context, links = self._propagation.extract(values)
        span = self._tracer.start_span(
            f"process {values['queue']}",
            context,
            kind=SpanKind.CONSUMER,
            links=links,
            attributes=self._of_processing(values),
        )
        token = attach(set_span_in_context(span, context))
        self._processing.set((span, token))

    def _job_stop(self, oban: Oban, stop: JobStop) -> None:
        if (span := self._leave()) is not None:
            _end(span, stop.state.value)

    def _job_exception(self, oban: Oban, exception: JobException) -> None:
        if (span := self._leave()) is not None:
            failed = exception.state in _FAILED
            _end(span, exception.state.value, exception.error if failed else None)

    def _job_dropped(self, oban: Oban, dropped: JobDropped) -> None:
        if (span := self._leave()) is not None:
            _end(span, "dropped")

    def _leave(self) -> Span | None:
        """The span of the attempt that ends, if it records. The span is not current any more."""
        processing = self._processing.get()
        if processing is None:
            # The job started before the listeners were attached.
            return None
        self._processing.set(None)
        span, token = processing
        detach(token)
        return span if span.is_recording() else None

    def _of_sending(self, jobs: Sequence[Job], queue: str | None) -> _Attributes:
        attributes: _Attributes = {
            "messaging.system": "oban",
            "messaging.operation.name": "send",
            "messaging.operation.type": "send",
        }
        if queue is not None:
            attributes["messaging.destination.name"] = queue
        if len(jobs) > 1:
            attributes["messaging.batch.message_count"] = len(jobs)
        workers = {job.worker for job in jobs}
        if len(workers) == 1:
            attributes["oban.job.worker"] = workers.pop()
        if self._arguments and len(jobs) == 1:
            attributes["oban.job.args"] = _as_json(jobs[0].args)
        return attributes

    def _of_processing(self, values: Mapping[str, Any]) -> _Attributes:
        # Few attributes: exporting one takes a tenth of the time of creating a span.
        meta = values["meta"]
        attributes: _Attributes = {
            **_PROCESS,
            "messaging.destination.name": values["queue"],
            "messaging.message.id": str(values["id"]),
            "oban.job.worker": values["worker"],
            "oban.job.attempt": values["attempt"],
        }
        # A row written by hand may hold any JSON.
        if isinstance(meta, dict) and "workflow_id" in meta:
            attributes["oban.job.workflow_id"] = str(meta["workflow_id"])
        if self._arguments:
            attributes["oban.job.args"] = _as_json(values["args"])
        return attributes


def _end(span: Span, state: str, error: BaseException | None = None) -> None:
    span.set_attribute("oban.job.state", state)
    if error is not None:
        span.set_attribute("error.type", _type(error))
        with parameters_hidden(error):
            span.record_exception(error)
        span.set_status(Status(StatusCode.ERROR, _type(error)))
    span.end()


def current_ids() -> Mapping[str, str]:
    """The ids of the current span, for logs."""
    context = get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {
        "trace_id": format(context.trace_id, "032x"),
        "span_id": format(context.span_id, "016x"),
        "trace_flags": format(context.trace_flags, "02x"),
    }


def _type(error: BaseException) -> str:
    kind = type(error)
    module = kind.__module__
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"


def _as_json(args: object) -> str:
    # JSON can't express a mapped instance without a key.
    return json.dumps(args, default=repr)
