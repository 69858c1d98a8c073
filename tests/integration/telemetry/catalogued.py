"""What arrived, held against the catalogue."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from sage_telemetry.catalogue import ATTRIBUTES, EVENTS_OF, GEN_AI, LINKS_OF, SPANS
from tests.integration.telemetry.otlp_receiver import Span
from tests.support.otlp_values import values


def unlisted(spans: Iterable[Span]) -> Iterator[str]:
    """Names that the catalogue has not, or not there, as ``span > name``; as often as they came."""
    for span in spans:
        if span.name not in SPANS:
            yield span.name
        yield from _unlisted_in(span)


def _unlisted_in(span: Span) -> Iterator[str]:
    yield from (f"{span.name} > {key}" for key in _unlisted_keys(span.wire.attributes))
    for event in span.wire.events:
        if event.name not in EVENTS_OF.get(span.name, ()):
            yield f"{span.name} > event {event.name}"
        yield from (f"{span.name} > event {event.name} > {key}" for key in _unlisted_keys(event.attributes))
    for link in span.wire.links:
        told = values(link.attributes)
        if told.get("sage.link") is None or told["sage.link"] != LINKS_OF.get(span.name):
            yield f"{span.name} > link {told.get('sage.link')}"
        yield from (f"{span.name} > link > {key}" for key in _unlisted_keys(link.attributes))


def _unlisted_keys(attributes: Iterable[KeyValue]) -> list[str]:
    return [pair.key for pair in attributes if pair.key not in ATTRIBUTES and pair.key not in GEN_AI]
