"""W3C trace context: taken over from the caller, begun where there is none, handed on.

It is read and written once or twice for every request on the event loop, so its usual form has a short way here; a test
holds it against OpenTelemetry's propagator, which reads all others.
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
    """From a generator of our own: libraries seed the shared one, and two executors must not make the same ids."""

    def __init__(self) -> None:
        self._random = Random()

    def generate_span_id(self) -> int:
        return self._random.getrandbits(64) or 1

    def generate_trace_id(self) -> int:
        return self._random.getrandbits(128) or 1


_IDS = OwnRandomIds()


class HeadSampling:
    """The caller's decision is kept, else ``ratio`` of the traces is sampled: a function of the trace's id, so that
    every process decides alike."""

    def __init__(self, ratio: float) -> None:
        self._below = TraceIdRatioBased.get_bound_for_rate(ratio)

    def begin(self, parent: SpanContext | None) -> SpanContext:
        """The context of a new span; of a new trace where there is no ``parent``."""
        if parent is not None:
            return child_of(parent)
        trace_id = _IDS.generate_trace_id()
        sampled = trace_id & TraceIdRatioBased.TRACE_ID_LIMIT < self._below
        flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
        return SpanContext(trace_id, _IDS.generate_span_id(), False, flags)


def parent_of(headers: Mapping[str, str]) -> SpanContext | None:
    """The caller's span; None where there is none, or none that the standard allows."""
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
    """Of a new span in the same trace."""
    return SpanContext(context.trace_id, _IDS.generate_span_id(), False, context.trace_flags, context.trace_state)


def headers_of(context: SpanContext) -> dict[str, str]:
    """What makes another process's span a child of this one."""
    headers = {TRACEPARENT: f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"}
    if context.trace_state:
        headers[TRACESTATE] = context.trace_state.to_header()
    return headers
