"""Writes the spans of requests that have ended into OTLP's messages, in the exporter's thread.

The event loop only takes notes, and spans are written straight into the request that is sent.  A tracer would record
them attribute by attribute while the client waits, and the SDK's exporter would copy each part into the one around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, SpanFlags, Status
from opentelemetry.trace import SpanContext, SpanKind

from sage_telemetry.otlp_attributes import AttributeEncoder, Attributes
from sage_telemetry.resource import Identity, scope

_KINDS = {
    SpanKind.INTERNAL: Span.SPAN_KIND_INTERNAL,
    SpanKind.SERVER: Span.SPAN_KIND_SERVER,
    SpanKind.CLIENT: Span.SPAN_KIND_CLIENT,
}
_of_span, _of_event, _of_link = AttributeEncoder(Span), AttributeEncoder(Span.Event), AttributeEncoder(Span.Link)
_FINE = Status()
_KNOWN = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
_REMOTE = SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK


class Event(NamedTuple):
    """Something that happened during a span."""

    name: str
    at_ns: int  # nanoseconds since 1970
    attributes: Attributes = MappingProxyType({})


class Link(NamedTuple):
    """A reference to another span."""

    context: SpanContext
    attributes: Attributes = MappingProxyType({})


class SpanWriter:
    """Writes the spans of one export request."""

    def __init__(self, empty: ExportTraceServiceRequest) -> None:
        """Begin a request.  ``empty``: what ``empty_request`` returned; it is copied."""
        self.request = ExportTraceServiceRequest()
        self.request.CopyFrom(empty)
        self._spans = self.request.resource_spans[0].scope_spans[0].spans
        self.size = 0  # bytes of all spans

    @property
    def count(self) -> int:
        """The number of spans written so far."""
        return len(self._spans)

    def take(self, source: SpanSource) -> None:
        """Write all spans of ``source``, or none.  Raises what writing one of them raised."""
        count, size = self.count, self.size
        try:
            source.write_spans(self)
        except BaseException:
            del self._spans[count:]
            self.size = size
            raise

    def write(
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        start_ns: int,
        end_ns: int,
        attributes: Attributes,
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        failed: str | None = None,
        events: Sequence[Event] = (),
        links: Sequence[Link] = (),
    ) -> None:
        """Write one span.

        ``parent``: None for a root.  ``start_ns``, ``end_ns``: since 1970; an end before the start becomes the start.
        ``failed``: why the span's status is ERROR, in words.  Raises TypeError and ValueError for values that OTLP does
        not have, and may then leave a part of the span behind, which ``take`` removes.
        """
        span = self._spans.add(
            trace_id=context.trace_id.to_bytes(16, "big"),
            span_id=context.span_id.to_bytes(8, "big"),
            trace_state=context.trace_state.to_header() if context.trace_state else "",
            parent_span_id=parent.span_id.to_bytes(8, "big") if parent is not None else b"",
            name=name,
            kind=_KINDS[kind],
            start_time_unix_nano=start_ns,
            end_time_unix_nano=max(start_ns, end_ns),
            flags=_flags(parent),
            status=_FINE if failed is None else Status(code=Status.STATUS_CODE_ERROR, message=failed),
        )
        span.MergeFromString(_of_span(attributes))
        for event in events:
            added = span.events.add(name=event.name, time_unix_nano=event.at_ns)
            added.MergeFromString(_of_event(event.attributes))
        for link in links:
            linked = span.links.add(
                trace_id=link.context.trace_id.to_bytes(16, "big"),
                span_id=link.context.span_id.to_bytes(8, "big"),
                flags=_flags(link.context),
            )
            linked.MergeFromString(_of_link(link.attributes))
        self.size += span.ByteSize()


def _flags(other: SpanContext | None) -> int:
    return _KNOWN | _REMOTE if other is not None and other.is_remote else _KNOWN


def empty_request(identity: Identity) -> ExportTraceServiceRequest:
    """Return a request without spans: the process and the scope that every request of it names."""
    resource, own = identity.resource(), scope()
    request = ExportTraceServiceRequest()
    of_resource = request.resource_spans.add(schema_url=resource.schema_url)
    of_resource.resource.MergeFromString(AttributeEncoder(Resource)(resource.attributes))
    of_scope = of_resource.scope_spans.add()
    of_scope.scope.name = own.name
    of_scope.scope.version = own.version or ""
    return request


class SpanSource(Protocol):
    """Notes of something that has ended, from which its spans are written."""

    @property
    def context(self) -> SpanContext:
        """The context of the outermost of its spans."""
        ...

    @property
    def span_count(self) -> int:
        """The number of spans that ``write_spans`` writes."""
        ...

    def write_spans(self, writer: SpanWriter) -> None:
        """Write the spans, in the exporter's thread; the notes do not change any more."""
        ...
