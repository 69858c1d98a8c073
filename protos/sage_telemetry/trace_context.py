"""W3C trace context: read from the caller or begun, and sent on.

The event loop reads and writes it once or twice per request, so its usual form is parsed here, in a third of the
propagator's time; OpenTelemetry's propagator reads every other form, and a test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from random import Random
from typing import Final

from opentelemetry.context import Context
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.trace import SpanContext, TraceFlags, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from sage_wire.metadata import TRACEPARENT, TRACESTATE

_PROPAGATOR = TraceContextTextMapPropagator()
_NOTHING = Context()
_USUAL: Final = re.compile("00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


class OwnRandomIds(IdGenerator):
    """Makes ids from a random generator of its own: libraries seed the shared one, and two executors must not make the
    same ids.
    """

    def __init__(self) -> None:
        """Seed the generator from the operating system."""
        self._random = Random()

    def generate_span_id(self) -> int:
        """Return 64 random bits, not all 0."""
        return self._random.getrandbits(64) or 1

    def generate_trace_id(self) -> int:
        """Return 128 random bits, not all 0."""
        return self._random.getrandbits(128) or 1


_IDS = OwnRandomIds()


class HeadSampling:
    """Decides which traces are sampled: as the caller did or, without a caller's trace, by the trace's id."""

    def __init__(self, ratio: float) -> None:
        """``ratio``: the share of traces that is sampled where no caller decided, 0 to 1."""
        self._below = TraceIdRatioBased.get_bound_for_rate(ratio)

    def begin(self, parent: SpanContext | None) -> SpanContext:
        """Return the context of a new span; without a ``parent`` it begins a trace."""
        if parent is not None:
            return child_of(parent)
        trace_id = _IDS.generate_trace_id()
        sampled = trace_id & TraceIdRatioBased.TRACE_ID_LIMIT < self._below
        flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
        return SpanContext(trace_id, _IDS.generate_span_id(), False, flags)


def parent_of(headers: Mapping[str, str]) -> SpanContext | None:
    """Return the caller's span; None where the headers name none, or one that is not valid."""
    header = headers.get(TRACEPARENT)
    if header is None:
        return None
    if TRACESTATE not in headers and (usual := _USUAL.fullmatch(header)) is not None:
        trace_id, span_id, flags = usual.groups()
        context = SpanContext(int(trace_id, 16), int(span_id, 16), True, TraceFlags(int(flags, 16)))
    else:
        context = get_current_span(_PROPAGATOR.extract(headers, _NOTHING)).get_span_context()
    return context if context.is_valid else None


def child_of(context: SpanContext) -> SpanContext:
    """Return the context of a new span in the same trace, with the same sampling decision."""
    return SpanContext(context.trace_id, _IDS.generate_span_id(), False, context.trace_flags, context.trace_state)


def headers_of(context: SpanContext) -> dict[str, str]:
    """Return the headers that make another process's span a child of this one."""
    headers = {TRACEPARENT: f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"}
    if context.trace_state:
        headers[TRACESTATE] = context.trace_state.to_header()
    return headers
