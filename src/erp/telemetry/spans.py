"""Builds OpenTelemetry spans for calls that have already ended."""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from erp.telemetry import ids

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

wanted_ids: contextvars.ContextVar[tuple[int, int] | None] = contextvars.ContextVar("wanted_ids", default=None)
"""Trace and span id of the span about to be started, so that headers and spans agree."""


class WantedIds:
    """An OpenTelemetry id generator that uses ``wanted_ids`` when they are set."""

    def generate_span_id(self) -> int:
        """Return a 64-bit id."""
        wanted = wanted_ids.get()
        return wanted[1] if wanted else ids.new_span_id()

    def generate_trace_id(self) -> int:
        """Return a 128-bit id."""
        wanted = wanted_ids.get()
        return wanted[0] if wanted else ids.new_trace_id()

    def is_trace_id_random(self) -> bool:
        """Ids are random (W3C trace context level 2 flag)."""
        return True


def export(
    tracer: Tracer,
    name: str,
    *,
    traceparent: str,
    parent: str | None,
    start_ns: int,
    end_ns: int,
    attributes: dict[str, str | float],
    error: str | None,
) -> None:
    """Start and end a span whose times lie in the past."""
    context = trace.set_span_in_context(NonRecordingSpan(_context_of(parent)), Context()) if parent else Context()
    _, trace_id, span_id, _ = traceparent.split("-")
    token = wanted_ids.set((int(trace_id, 16), int(span_id, 16)))
    try:
        span = tracer.start_span(name, context, SpanKind.SERVER, attributes, start_time=start_ns)
    finally:
        wanted_ids.reset(token)
    if error is not None:
        span.set_attribute("error.type", error)
        span.set_status(Status(StatusCode.ERROR, error))
    span.end(end_ns)


def _context_of(traceparent: str) -> SpanContext:
    _, trace_id, span_id, flags = traceparent.split("-")
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))
