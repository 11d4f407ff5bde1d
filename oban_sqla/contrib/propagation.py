"""The context of a trace in a job's meta: top-level keys named by W3C, as in Oban for Elixir.

The span of a job is a child of the span that enqueued it, or begins a new trace with a link to it.
Only the enqueue knows whether its jobs are a fan-out, so `tracestate` carries that to the job.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args
from weakref import WeakKeyDictionary

from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    TraceFlags,
    TraceState,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ..models import Job
from .carrier import inject

Relationship: TypeAlias = Literal["auto", "parent", "link", "none"]
"""How the span of a job relates to the span that enqueued it."""

RELATIONSHIPS: tuple[Relationship, ...] = get_args(Relationship)

# The key and the value of our entry in `tracestate`.
_VENDOR = "oban"
_LINK = "link"

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_KEYS = ("traceparent", "tracestate", "baggage")
# The context without a span. A context can't be changed.
_EMPTY = Context()
_trace_context = TraceContextTextMapPropagator()
_baggage = W3CBaggagePropagator()


class Propagation:
    """Puts the context into jobs at the enqueue, and reads it at their start."""

    def __init__(
        self, relationship: Relationship, *, prompt_within: float, fan_out: int, baggage: bool
    ) -> None:
        self._relationship = relationship
        self._prompt_within = prompt_within
        self._fan_out = fan_out
        self._carries_baggage = baggage
        # The number of enqueued jobs by the span that was current.
        self._sent: WeakKeyDictionary[Span, int] = WeakKeyDictionary()

    def inject(self, jobs: Sequence[Job], sent_by: Span, parent: Span) -> None:
        """Put the context of the span `sent_by` into jobs. A context from the caller stays.

        parent: the span that was current when the jobs were enqueued.
        """
        context = sent_by.get_span_context()
        if not context.is_valid or self._relationship == "none":
            return
        carrier: dict[str, str] = {}
        _trace_context.inject(carrier, set_span_in_context(self._marked(context, jobs, parent)))
        if self._carries_baggage:
            _baggage.inject(carrier)
        for job in jobs:
            inject(job, carrier, _KEYS, "traceparent")

    def extract(self, values: Mapping[str, Any]) -> tuple[Context, Sequence[Link]]:
        """The context for the span of a job with these values, and its links.

        The context in which the instance was started is never used.
        """
        meta = values["meta"]
        if not meta or self._relationship == "none" or not isinstance(meta, dict):
            return _EMPTY, ()
        sent_by = _parsed(meta)
        if sent_by is None:
            return _EMPTY, ()
        links: Sequence[Link] = ()
        if self._is_child(values, sent_by):
            context = set_span_in_context(NonRecordingSpan(sent_by), Context())
        else:
            context, links = Context(), (Link(sent_by),)
        if self._carries_baggage and isinstance(meta.get("baggage"), str):
            context = _baggage.extract({"baggage": meta["baggage"]}, context)
        return context, links

    def _marked(self, context: SpanContext, jobs: Sequence[Job], parent: Span) -> Span:
        """A span with this context, whose tracestate says whether the jobs are a fan-out."""
        count = len(jobs)
        if parent.get_span_context().is_valid:
            count = self._sent[parent] = self._sent.get(parent, 0) + count
        state = context.trace_state
        if count > self._fan_out:
            state = state.update(_VENDOR, _LINK) if _VENDOR in state else state.add(_VENDOR, _LINK)
        elif _VENDOR in state:
            state = state.delete(_VENDOR)
        return NonRecordingSpan(
            SpanContext(
                context.trace_id,
                context.span_id,
                is_remote=False,
                trace_flags=context.trace_flags,
                trace_state=TraceState(list(state.items())) if state else None,
            )
        )

    def _is_child(self, job: Mapping[str, Any], sent_by: SpanContext) -> bool:
        if self._relationship != "auto":
            return self._relationship == "parent"
        return (
            job["attempt"] == 1
            and not job["meta"].get("snoozed")
            and not job["meta"].get("cron")
            and sent_by.trace_state.get(_VENDOR) != _LINK
            and (job["attempted_at"] - job["inserted_at"]).total_seconds() <= self._prompt_within
        )


def _parsed(meta: Mapping[str, Any]) -> SpanContext | None:
    """The context in a meta; `None` if it is invalid by W3C's rules.

    Parsed here, because the propagator takes as long as the SDK takes for a span.
    """
    header = meta.get("traceparent")
    found = _TRACEPARENT.fullmatch(header) if isinstance(header, str) else None
    if found is None:
        return None
    version, trace_id, span_id, flags, rest = found.groups()
    if version == "ff" or (version == "00" and rest):
        return None
    state = meta.get("tracestate")
    context = SpanContext(
        int(trace_id, 16),
        int(span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(int(flags, 16)),
        trace_state=TraceState.from_header([state]) if state and isinstance(state, str) else None,
    )
    return context if context.is_valid else None
