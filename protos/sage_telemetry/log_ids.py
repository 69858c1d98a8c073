"""Ids in log lines, for whoever goes from a line to its trace."""

from __future__ import annotations

from sage_telemetry.trace_context import parent_of
from sage_wire.metadata import TRACEPARENT


def trace_ids(traceparent: str) -> dict[str, str]:
    """trace_id and span_id, as OpenTelemetry names them in JSON logs; empty where there is no valid context."""
    context = parent_of({TRACEPARENT: traceparent}) if traceparent else None
    return {} if context is None else {"trace_id": context.trace_id, "span_id": context.span_id}
