"""Spans, written straight into OTLP messages.

They are written once they are over, from what was noted meanwhile, in the exporter's thread: the event loop only takes
notes.  (Recording with the OpenTelemetry SDK and encoding with its exporter costs several times as much, most of it
while the request waits.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from opentelemetry.proto.trace.v1 import trace_pb2

from sage_telemetry.attributes import Attributes, write_attributes
from sage_telemetry.trace_context import SpanContext

SERVER = trace_pb2.Span.SPAN_KIND_SERVER
CLIENT = trace_pb2.Span.SPAN_KIND_CLIENT
INTERNAL = trace_pb2.Span.SPAN_KIND_INTERNAL

_FLAGS_KNOWN = trace_pb2.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
_FLAGS_REMOTE = trace_pb2.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
_SAMPLED = 1


@dataclass(frozen=True, slots=True)
class Event:
    name: str
    at_ns: int  # since 1970
    attributes: Attributes = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Link:
    context: SpanContext
    attributes: Mapping[str, str]


class SpanWriter:
    """Appends spans to one export."""

    def __init__(self, into: trace_pb2.ScopeSpans) -> None:
        self._spans = into.spans

    def __len__(self) -> int:
        return len(self._spans)

    def write(
        self,
        name: str,
        context: SpanContext,
        parent_id: str,
        start_ns: int,
        end_ns: int,
        attributes: Attributes,
        *,
        kind: trace_pb2.Span.SpanKind.ValueType = INTERNAL,
        remote_parent: bool = False,
        failed: str | None = None,
        events: Sequence[Event] = (),
        links: Sequence[Link] = (),
    ) -> None:
        """``parent_id``: empty for the root.  ``failed``: why, in words; the status is then ERROR."""
        span = self._spans.add(
            trace_id=bytes.fromhex(context.trace_id),
            span_id=bytes.fromhex(context.span_id),
            trace_state=context.state,
            name=name,
            kind=kind,
            start_time_unix_nano=start_ns,
            end_time_unix_nano=max(start_ns, end_ns),
            flags=_SAMPLED | _FLAGS_KNOWN | (_FLAGS_REMOTE if remote_parent else 0),
        )
        if parent_id:
            span.parent_span_id = bytes.fromhex(parent_id)
        write_attributes(span.attributes, attributes)
        for event in events:
            written = span.events.add(name=event.name, time_unix_nano=event.at_ns)
            write_attributes(written.attributes, event.attributes)
        for link in links:
            to = link.context
            made = span.links.add(trace_id=bytes.fromhex(to.trace_id), span_id=bytes.fromhex(to.span_id))
            write_attributes(made.attributes, link.attributes)
        if failed is not None:
            span.status.code = trace_pb2.Status.STATUS_CODE_ERROR
            span.status.message = failed


class SpanSource(Protocol):
    """Notes of something that is over."""

    def write_spans(self, writer: SpanWriter) -> None:
        """Called in the exporter's thread; nothing else changes the notes any more."""
        ...
