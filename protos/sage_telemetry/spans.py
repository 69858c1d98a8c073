"""Spans, made once they are over, from what was noted meanwhile, in the exporter's thread: the event loop only takes
notes.

They are the SDK's own, made directly: a tracer would record them one attribute after the other, while the request
waits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.util.types import AttributeValue

Attributes = Mapping[str, AttributeValue | None]
"""None: the attribute is left out."""


class SpanWriter:
    """Collects the spans of one export."""

    def __init__(self, resource: Resource, scope: InstrumentationScope) -> None:
        self._resource = resource
        self._scope = scope
        self.spans: list[ReadableSpan] = []

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
        """``parent``: None for the root.  ``failed``: why, in words; the status is then ERROR."""
        self.spans.append(
            ReadableSpan(
                name=name,
                context=context,
                parent=parent,
                resource=self._resource,
                attributes=stated(attributes),
                events=events,
                links=links,
                kind=kind,
                status=_FINE if failed is None else Status(StatusCode.ERROR, failed),
                start_time=start_ns,
                end_time=max(start_ns, end_ns),
                instrumentation_scope=self._scope,
            )
        )


_FINE = Status(StatusCode.UNSET)


def stated(attributes: Attributes) -> dict[str, AttributeValue]:
    return {name: value for name, value in attributes.items() if value is not None}


def event(name: str, at_ns: int, attributes: Attributes | None = None) -> Event:
    """``at_ns``: since 1970."""
    return Event(name, stated(attributes or {}), at_ns)


class SpanSource(Protocol):
    """Notes of something that is over."""

    @property
    def context(self) -> SpanContext:
        """Of the outermost of its spans."""
        ...

    @property
    def span_count(self) -> int:
        """How many it will write."""
        ...

    def write_spans(self, writer: SpanWriter) -> None:
        """Called in the exporter's thread; nothing else changes the notes any more."""
        ...
