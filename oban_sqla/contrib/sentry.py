"""Sentry: errors of jobs, spans of enqueues and jobs, and check-ins of cron.

Turn it on in Sentry's initialization::

    sentry_sdk.init(..., integrations=[ObanIntegration()])

It needs the extra `sentry`.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from contextvars import ContextVar
from typing import Any, Literal, get_args

import sentry_sdk
from sentry_sdk.crons import capture_checkin
from sentry_sdk.integrations import Integration
from sentry_sdk.integrations.logging import ignore_logger
from sentry_sdk.utils import event_from_exception

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
from . import listeners
from .carrier import inject
from .listeners import Listener
from .redaction import parameters_hidden

Capture = Literal["always", "discarded"]

_ORIGIN = "auto.queue.oban_sqla"
_KEYS = ("sentry-trace", "baggage")


class ObanIntegration(Integration):
    """The integration to pass to `sentry_sdk.init`."""

    identifier = "oban_sqla"
    origin = _ORIGIN

    def __init__(
        self,
        *,
        capture: Capture = "always",
        arguments: bool = False,
        monitor_cron: bool = False,
    ) -> None:
        """Choose what to send to Sentry.

        capture: `"always"`, or `"discarded"` to send only the error of a job's last attempt.
        arguments: whether errors contain the arguments of jobs, and local variables.
        monitor_cron: whether jobs of cron check in. Each cron entry has a monitor of its own.

        `ValueError` for another `capture`.
        """
        if capture not in get_args(Capture):
            raise ValueError(f"capture must be 'always' or 'discarded', not {capture!r}")
        self.capture = capture
        self.arguments = arguments
        self.monitor_cron = monitor_cron

    @staticmethod
    def setup_once() -> None:
        """Attach the listeners. They use the integration of the client that is current later."""
        # Errors of jobs are sent by the listeners, so Sentry must not take them from the log, too.
        ignore_logger("oban_sqla.jobs")
        attach()


def attach() -> None:
    """Attach the listeners. `sentry_sdk.init` calls this."""
    listeners.attach(_LISTENERS)


def detach() -> None:
    """Detach the listeners."""
    listeners.detach(_LISTENERS)


class _Attempt:
    """The scope, transaction and span of an attempt in Sentry."""

    def __init__(self, integration: ObanIntegration, job: Job, latency: float) -> None:
        self.integration = integration
        self._stack = ExitStack()
        scope = self._stack.enter_context(sentry_sdk.isolation_scope())
        scope.clear_breadcrumbs()
        scope.set_tag("oban.queue", job.queue)
        scope.set_tag("oban.worker", job.worker)
        scope.set_context("oban job", _context(integration, job))
        if not integration.arguments:
            scope.add_event_processor(_without_variables)
        transaction = sentry_sdk.continue_trace(
            _headers(job), op="queue.task.oban", name=job.worker, source="task", origin=_ORIGIN
        )
        self.transaction = self._stack.enter_context(sentry_sdk.start_transaction(transaction))
        span = sentry_sdk.start_span(op="queue.process", name=job.worker, origin=_ORIGIN)
        _describe(span, job.queue, str(job.id))
        span.set_data("messaging.message.retry.count", job.attempt - 1)
        span.set_data("messaging.message.receive.latency", latency * 1000)
        self._stack.enter_context(span)
        self._monitor = _monitor(job) if integration.monitor_cron else None
        self._check_in: str | None = None
        if self._monitor is not None:
            self._check_in = capture_checkin(**self._monitor, status="in_progress")

    def end(self, status: str, duration: float, worked: bool) -> None:
        self.transaction.set_status(status)
        if self._monitor is not None:
            capture_checkin(
                **self._monitor,
                check_in_id=self._check_in,
                status="ok" if worked else "error",
                duration=duration,
            )
        self._stack.close()


_attempt: ContextVar[_Attempt | None] = ContextVar("oban_sqla_sentry", default=None)
_sending: dict[EnqueueStart, Any] = {}


def _enqueue_start(enqueueing: Enqueueing, start: EnqueueStart) -> None:
    if _integration() is None:
        return
    queues = sorted({job.queue for job in start.jobs})
    workers = sorted({job.worker for job in start.jobs})
    span = sentry_sdk.start_span(op="queue.publish", name=", ".join(queues), origin=_ORIGIN)
    _describe(span, ", ".join(queues))
    _sending[start] = span
    carrier = {"sentry-trace": span.to_traceparent()}
    if baggage := sentry_sdk.get_baggage():
        carrier["baggage"] = baggage
    for job in start.jobs:
        inject(job, carrier, _KEYS, "sentry-trace")
    sentry_sdk.add_breadcrumb(
        category="oban",
        message=f"enqueues {len(start.jobs)} of {', '.join(workers)}",
        data={"queues": queues},
    )


def _enqueue_stop(enqueueing: Enqueueing, stop: EnqueueStop) -> None:
    span = _sending.pop(stop.start, None)
    if span is not None:
        jobs = stop.start.jobs
        if (
            stop.error is None
            and len(jobs) == 1
            and (id := values_of(jobs[0]).get("id")) is not None
        ):
            span.set_data("messaging.message.id", str(id))
        span.set_status("ok" if stop.error is None else "internal_error")
        span.finish()


def _job_start(oban: Oban, start: JobStart) -> None:
    integration = _integration()
    if integration is not None:
        job = start.job
        assert job.attempted_at is not None
        latency = (job.attempted_at - job.scheduled_at).total_seconds()
        _attempt.set(_Attempt(integration, job, latency))


def _job_stop(oban: Oban, stop: JobStop) -> None:
    _end("cancelled" if stop.state is JobState.CANCELLED else "ok", stop.duration, worked=True)


def _job_exception(oban: Oban, exception: JobException) -> None:
    attempt = _attempt.get()
    if attempt is None:
        return
    if exception.state is JobState.CANCELLED:
        _end("cancelled", exception.duration, worked=False)
        return
    if attempt.integration.capture == "always" or exception.state is JobState.DISCARDED:
        with parameters_hidden(exception.error):
            event, hint = event_from_exception(
                exception.error,
                client_options=sentry_sdk.get_client().options,
                mechanism={"type": ObanIntegration.identifier, "handled": False},
            )
            sentry_sdk.capture_event(event, hint=hint)
    _end("internal_error", exception.duration, worked=False)


def _job_dropped(oban: Oban, dropped: JobDropped) -> None:
    _end("aborted", dropped.duration, worked=False)


def _end(status: str, duration: float, *, worked: bool) -> None:
    attempt = _attempt.get()
    if attempt is not None:
        _attempt.set(None)
        attempt.end(status, duration, worked)


def _integration() -> ObanIntegration | None:
    found: ObanIntegration | None = sentry_sdk.get_client().get_integration(ObanIntegration)
    return found


def _describe(span: Any, destination: str, id: str | None = None) -> None:
    span.set_data("messaging.system", "oban")
    span.set_data("messaging.destination.name", destination)
    if id is not None:
        span.set_data("messaging.message.id", id)


def _context(integration: ObanIntegration, job: Job) -> dict[str, Any]:
    context: dict[str, Any] = {
        "id": job.id,
        "worker": job.worker,
        "queue": job.queue,
        "attempt": job.attempt,
        "max_attempts": job.max_attempts,
    }
    if integration.arguments:
        context["args"] = job.args
    return context


def _headers(job: Job) -> dict[str, str]:
    meta = job.meta if isinstance(job.meta, Mapping) else {}
    return {key: meta[key] for key in _KEYS if isinstance(meta.get(key), str)}


def _monitor(job: Job) -> dict[str, Any] | None:
    """The monitor of a cron entry, as the meta of its job describes it; `None` for other jobs."""
    meta = job.meta if isinstance(job.meta, Mapping) else {}
    name, expression = meta.get("cron_name"), meta.get("cron_expr")
    if not meta.get("cron") or not isinstance(name, str):
        return None
    monitor: dict[str, Any] = {"monitor_slug": name}
    # Sentry can't express `@reboot`.
    if isinstance(expression, str) and len(expression.split()) == 5:
        monitor["monitor_config"] = {
            "schedule": {"type": "crontab", "value": expression},
            "timezone": str(meta.get("cron_tz") or "UTC"),
        }
    return monitor


def _without_variables(event: Any, hint: Any) -> Any:
    """Remove local variables, since they contain the job with its arguments."""
    for exception in event.get("exception", {}).get("values", ()):
        for frame in (exception.get("stacktrace") or {}).get("frames", ()):
            frame.pop("vars", None)
    return event


_LISTENERS: Sequence[Listener] = (
    (Enqueueing, "enqueue_start", _enqueue_start),
    (Enqueueing, "enqueue_stop", _enqueue_stop),
    (Oban, "job_start", _job_start),
    (Oban, "job_stop", _job_stop),
    (Oban, "job_exception", _job_exception),
    (Oban, "job_dropped", _job_dropped),
)
