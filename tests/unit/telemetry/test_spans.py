"""Spans are written as OpenTelemetry's own exporter would write them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan
from opentelemetry.sdk import trace as sdk
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from sage_telemetry.otlp_attributes import KEPT, KEPT_CHARACTERS, AttributeEncoder, Attributes
from sage_telemetry.resource import Identity, scope
from sage_telemetry.spans import Event, Link, SpanWriter, empty_request

IDENTITY = Identity(service="scheduler", instance_id="test", further={"deployment.environment.name": "lab"})
CALLER = SpanContext(2**127 + 1, 2**63 + 1, True, TraceFlags(1), TraceState([("app", "1"), ("other", "2")]))
OWN = SpanContext(CALLER.trace_id, 7, False, TraceFlags(1), CALLER.trace_state)
ROOT = SpanContext(1, 1, False, TraceFlags(1))
EVERY_KIND: Attributes = {
    "text": "déjà vu",
    "empty": "",
    "long": "x" * (KEPT_CHARACTERS + 1),
    "yes": True,
    "no": False,
    "one": 1,
    "whole": -(2**40),
    "zero": 0,
    "real": 0.25,
    "nothing": 0.0,
    "texts": ["a", "b"],
    "reals": (0.5, 1.5),
    "wholes": (1, 2),
    "none at all": [],
    "left out": None,
}


class Both:
    """Writes each span with ours and with the SDK."""

    def __init__(self) -> None:
        self.writer = SpanWriter(empty_request(IDENTITY))
        self._theirs: list[sdk.ReadableSpan] = []

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
        events: tuple[Event, ...] = (),
        links: tuple[Link, ...] = (),
    ) -> None:
        self.writer.write(
            name, context, parent, start_ns, end_ns, attributes, kind=kind, failed=failed, events=events, links=links
        )
        self._theirs.append(
            sdk.ReadableSpan(
                name=name,
                context=context,
                parent=parent,
                resource=IDENTITY.resource(),
                attributes=stated(attributes),
                events=[sdk.Event(event.name, stated(event.attributes), event.at_ns) for event in events],
                links=[trace.Link(link.context, stated(link.attributes)) for link in links],
                kind=kind,
                status=Status(StatusCode.UNSET) if failed is None else Status(StatusCode.ERROR, failed),
                start_time=start_ns,
                end_time=end_ns,
                instrumentation_scope=scope(),
            )
        )

    def assert_same(self) -> None:
        ours, theirs = self.writer.request, encode_spans(self._theirs)
        assert ours == theirs
        assert ours.SerializeToString() == theirs.SerializeToString()


def stated(attributes: Attributes) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}


def test_a_root_with_nothing_on_it() -> None:
    both = Both()
    both.write("sage.request", ROOT, None, 1, 2, {})
    both.assert_same()


@pytest.mark.parametrize("kind", [SpanKind.INTERNAL, SpanKind.SERVER, SpanKind.CLIENT])
def test_everything_a_span_can_have(kind: SpanKind) -> None:
    both = Both()
    for _ in range(2):  # the second time, most of it was encoded before
        both.write(
            "sage.request",
            OWN,
            CALLER,
            1_700_000_000_000_000_000,
            1_700_000_000_000_000_001,
            EVERY_KIND,
            kind=kind,
            failed="why, in words",
            events=(Event("sage.first_token", 5), Event("sage.candidate", 6, EVERY_KIND)),
            links=(Link(ROOT, {"sage.link": "retry_of"}), Link(CALLER)),
        )
    both.write("sage.queue", ROOT, OWN, 3, 4, {"sage.queue.resumed": False})
    assert both.writer.count == 3
    spans = both.writer.request.resource_spans[0].scope_spans[0].spans
    assert both.writer.size == sum(span.ByteSize() for span in spans)
    both.assert_same()


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([0, 1, 0.0, 1.0, -0.0, True, False, "", "1"]),  # what a dictionary would take for the same
    st.floats(allow_nan=False),
    st.text(st.characters(codec="utf-8"), max_size=2 * KEPT_CHARACTERS),
    st.lists(st.text(st.characters(codec="utf-8"), max_size=5), max_size=3),
    st.lists(st.sampled_from([0.0, 1.0]), max_size=2),
    st.lists(st.sampled_from([0, 1]), max_size=2).map(tuple),
)


@given(spans=st.lists(st.dictionaries(st.sampled_from("abc"), VALUES), max_size=3))
def test_any_attributes_in_any_order_one_span_after_the_other(spans: list[dict[str, Any]]) -> None:
    both = Both()
    for number, attributes in enumerate(spans, start=1):
        context = SpanContext(1, number, False, TraceFlags(1))
        both.write("sage.request", context, None, 1, 2, attributes, events=(Event("sage.candidate", 6, attributes),))
    if spans:
        both.assert_same()


def test_without_spans_it_only_says_who_is_telling() -> None:
    writer = SpanWriter(empty_request(IDENTITY))
    assert writer.count == 0
    (resource,) = writer.request.resource_spans
    assert {pair.key for pair in resource.resource.attributes} >= {"service.name", "deployment.environment.name"}
    assert [scope.scope.name for scope in resource.scope_spans] == ["sage-control-plane"]


def test_an_end_before_the_start_is_at_the_start() -> None:
    writer = SpanWriter(empty_request(IDENTITY))
    writer.write("sage.queue", ROOT, None, 5, 4, {})
    (span,) = writer.request.resource_spans[0].scope_spans[0].spans
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (5, 5)


@pytest.mark.parametrize("value", [b"bytes", object(), {"a": 1}])
def test_what_is_no_attribute_is_turned_down(value: Any) -> None:
    writer = SpanWriter(empty_request(IDENTITY))
    with pytest.raises(TypeError, match="OTLP has no attribute of type"):
        writer.write("sage.request", ROOT, None, 1, 2, {"text": "a", "wrong": value})


def test_nothing_long_is_kept_and_what_is_kept_is_bounded() -> None:
    encode = AttributeEncoder(WireSpan)
    encode({"gen_ai.input.messages": "secret " * 50, "sage.failure": ["secret"] * 3, "sage.cost": 0.5})
    assert encode.kept == 0
    for number in range(KEPT + 1):
        encode({"sage.attempt.number": number})
    assert encode.kept == KEPT
