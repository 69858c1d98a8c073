"""W3C trace context: taken over from the caller, begun where there is none, handed on.

https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from random import Random
from typing import NamedTuple

from sage_wire.metadata import TRACEPARENT, TRACESTATE

_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 0x01
_RATIO_BITS = 64  # of the trace id, from its end, decide on sampling, as OpenTelemetry's ratio sampler has it

_random = Random()  # our own: libraries seed the shared one, and two executors must not make the same ids


class SpanContext(NamedTuple):
    """A span as others refer to it; ids in lower-case hexadecimal.  Several are made per request, so it is a tuple."""

    trace_id: str
    span_id: str
    sampled: bool
    state: str = ""  # tracestate, verbatim

    def child(self) -> SpanContext:
        """Of a new span in the same trace."""
        return SpanContext(self.trace_id, new_span_id(), self.sampled, self.state)

    def headers(self) -> dict[str, str]:
        """What makes another process's span a child of this one."""
        parent = f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"
        return {TRACEPARENT: parent, TRACESTATE: self.state} if self.state else {TRACEPARENT: parent}


def new_span_id() -> str:
    return f"{_random.getrandbits(64) or 1:016x}"


def new_trace_id() -> str:
    return f"{_random.getrandbits(128) or 1:032x}"


def parent_of(headers: Mapping[str, str]) -> SpanContext | None:
    """The caller's span; None where there is none, or none that the standard allows."""
    form = _FORM.fullmatch(headers.get(TRACEPARENT, ""))
    if form is None:
        return None
    version, trace_id, span_id, flags, more = form.groups()
    if version == "ff" or (version == "00" and more) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    return SpanContext(trace_id, span_id, bool(int(flags, 16) & _SAMPLED), headers.get(TRACESTATE, ""))


def begin(parent: SpanContext | None, ratio: float) -> SpanContext:
    """The context of a new span: its caller's decision on sampling is kept, else ``ratio`` of the traces is sampled."""
    if parent is not None:
        return parent.child()
    trace_id = new_trace_id()
    return SpanContext(trace_id, new_span_id(), in_ratio(trace_id, ratio))


def in_ratio(trace_id: str, ratio: float) -> bool:
    """A function of the id, so that every process decides alike."""
    return int(trace_id[-_RATIO_BITS // 4 :], 16) < round(ratio * (1 << _RATIO_BITS))
