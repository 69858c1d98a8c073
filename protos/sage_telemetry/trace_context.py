"""W3C trace context: taken over from the caller, begun where there is none, handed on.

Reading, writing and the decision on sampling are OpenTelemetry's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from opentelemetry.context import Context
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from sage_wire.metadata import TRACEPARENT

_PROPAGATOR = TraceContextTextMapPropagator()
_NOTHING = Context()


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
        self._sampler = ParentBased(TraceIdRatioBased(ratio))

    def begin(self, parent: SpanContext | None, name: str) -> SpanContext:
        """The context of a new span; of a new trace where there is no ``parent``."""
        trace_id = parent.trace_id if parent is not None else _IDS.generate_trace_id()
        result = self._sampler.should_sample(_around(parent), trace_id, name)
        others = parent.trace_flags & ~TraceFlags.SAMPLED if parent is not None else 0
        sampled = TraceFlags.SAMPLED if result.decision is Decision.RECORD_AND_SAMPLE else TraceFlags.DEFAULT
        return SpanContext(trace_id, _IDS.generate_span_id(), False, TraceFlags(others | sampled), result.trace_state)


def parent_of(headers: Mapping[str, str]) -> SpanContext | None:
    """The caller's span; None where there is none, or none that the standard allows."""
    if TRACEPARENT not in headers:
        return None
    context = get_current_span(_PROPAGATOR.extract(headers, _NOTHING)).get_span_context()
    return context if context.is_valid else None


def child_of(context: SpanContext) -> SpanContext:
    """Of a new span in the same trace."""
    return SpanContext(context.trace_id, _IDS.generate_span_id(), False, context.trace_flags, context.trace_state)


def headers_of(context: SpanContext) -> dict[str, str]:
    """What makes another process's span a child of this one."""
    headers: dict[str, str] = {}
    _PROPAGATOR.inject(headers, _around(context))
    return headers


def _around(context: SpanContext | None) -> Context:
    return _NOTHING if context is None else set_span_in_context(NonRecordingSpan(context), _NOTHING)
