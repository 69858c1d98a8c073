"""Hands the caller's trace context on."""

from __future__ import annotations

from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from sage_wire.metadata import with_trace_headers

_PROPAGATOR = TraceContextTextMapPropagator()


def trace_metadata() -> tuple[tuple[str, str], ...]:
    """W3C headers of the span that is current where this is called; empty where none is."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return with_trace_headers(carrier)
