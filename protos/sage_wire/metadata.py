"""Keys of gRPC metadata, and the trace context in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
AUTHORIZATION = "authorization"

Metadata = Iterable[tuple[str, str | bytes]] | None


def trace_headers(metadata: Metadata) -> dict[str, str]:
    """Return the W3C trace context in ``metadata``; empty if there is none."""
    found: dict[str, str] = {}
    for key, value in metadata or ():
        if key in (TRACEPARENT, TRACESTATE) and isinstance(value, str):
            found[key] = value
    return found


def with_trace_headers(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return ``headers`` as gRPC metadata; other headers than the trace context are left out."""
    return tuple((key, headers[key]) for key in (TRACEPARENT, TRACESTATE) if headers.get(key))
