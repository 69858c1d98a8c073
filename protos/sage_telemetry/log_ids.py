"""Trace and span ids for log lines, so that a line leads to its trace."""

from __future__ import annotations

from opentelemetry.trace import format_span_id, format_trace_id

from sage_telemetry.trace_context import parent_of
from sage_wire.metadata import TRACEPARENT


def trace_ids(traceparent: str) -> dict[str, str]:
    """Return trace_id and span_id, as OpenTelemetry names them in JSON logs; empty where the context is not valid."""
    context = parent_of({TRACEPARENT: traceparent}) if traceparent else None
    if context is None:
        return {}
    return {"trace_id": format_trace_id(context.trace_id), "span_id": format_span_id(context.span_id)}
