"""The SDK's OTLP exporter with a quicker encoder: messages are written in place, where the SDK's builds each apart and
copies it into the one around it, four times over for an attribute.

It writes what the SDK's would; a test holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, SpanFlags, Status
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, SpanKind, StatusCode
from opentelemetry.util.types import AttributeValue

_KINDS = {
    SpanKind.INTERNAL: Span.SPAN_KIND_INTERNAL,
    SpanKind.SERVER: Span.SPAN_KIND_SERVER,
    SpanKind.CLIENT: Span.SPAN_KIND_CLIENT,
}
_CODES = {StatusCode.OK: Status.STATUS_CODE_OK, StatusCode.ERROR: Status.STATUS_CODE_ERROR}
_KNOWN = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
_REMOTE = SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK


class QuickSpanExporter(OTLPSpanExporter):
    def _translate_data(self, data: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
        return encode(data)


def encode(spans: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
    """``spans``: all of one resource and one scope."""
    request = ExportTraceServiceRequest()
    if not spans:
        return request
    first = spans[0]
    of_resource = request.resource_spans.add(schema_url=first.resource.schema_url)
    _write_attributes(of_resource.resource.attributes, first.resource.attributes)
    of_scope = of_resource.scope_spans.add()
    if (scope := first.instrumentation_scope) is not None:
        of_scope.scope.name = scope.name
        of_scope.scope.version = scope.version or ""
        of_scope.schema_url = scope.schema_url or ""
    for span in spans:
        _write_span(of_scope.spans, span)
    return request


def _write_span(into: Any, span: ReadableSpan) -> None:
    context, parent, status = span.context, span.parent, span.status
    written: Span = into.add(
        **_ids(context),
        trace_state=context.trace_state.to_header(),
        name=span.name,
        kind=_KINDS[span.kind],
        start_time_unix_nano=span.start_time,
        end_time_unix_nano=span.end_time,
        flags=_flags(parent),
    )
    if parent is not None:
        written.parent_span_id = parent.span_id.to_bytes(8, "big")
    _write_attributes(written.attributes, span.attributes or {})
    for event in span.events:
        added = written.events.add(name=event.name, time_unix_nano=event.timestamp)
        _write_attributes(added.attributes, event.attributes or {})
    for link in span.links:
        linked = written.links.add(**_ids(link.context), flags=_flags(link.context))
        _write_attributes(linked.attributes, link.attributes or {})
    written.status.SetInParent()
    if not status.is_unset:
        written.status.code = _CODES[status.status_code]
        written.status.message = status.description or ""


def _ids(context: SpanContext) -> dict[str, bytes]:
    return {"trace_id": context.trace_id.to_bytes(16, "big"), "span_id": context.span_id.to_bytes(8, "big")}


def _flags(other: SpanContext | None) -> int:
    return _KNOWN | _REMOTE if other is not None and other.is_remote else _KNOWN


def _write_attributes(into: Any, attributes: Mapping[str, AttributeValue]) -> None:
    add = into.add
    for name, value in attributes.items():
        _write_value(add(key=name).value, value)


def _write_value(into: AnyValue, value: AttributeValue) -> None:
    if isinstance(value, str):
        into.string_value = value
    elif isinstance(value, bool):
        into.bool_value = value
    elif isinstance(value, int):
        into.int_value = value
    elif isinstance(value, float):
        into.double_value = value
    elif isinstance(value, Sequence) and not isinstance(value, bytes):
        into.array_value.SetInParent()
        for each in value:
            _write_value(into.array_value.values.add(), each)
    else:
        raise TypeError(f"no attribute of ours is a {type(value).__name__}")
