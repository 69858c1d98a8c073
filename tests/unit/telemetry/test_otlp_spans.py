"""Our encoder of spans writes what OpenTelemetry's own would."""

from __future__ import annotations

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags, TraceState

from sage_telemetry.otlp_spans import encode
from sage_telemetry.resource import Identity, scope
from sage_telemetry.spans import Attributes, SpanWriter, event

IDENTITY = Identity(service="scheduler", instance_id="test", further={"deployment.environment.name": "lab"})
CALLER = SpanContext(2**127 + 1, 2**63 + 1, True, TraceFlags(1), TraceState([("app", "1"), ("other", "2")]))
OWN = SpanContext(CALLER.trace_id, 7, False, TraceFlags(1), CALLER.trace_state)
ROOT = SpanContext(1, 1, False, TraceFlags(1))
EVERY_KIND: Attributes = {
    "text": "déjà vu",
    "empty": "",
    "yes": True,
    "no": False,
    "whole": -(2**40),
    "zero": 0,
    "real": 0.25,
    "texts": ["a", "b"],
    "reals": (0.5, 1.5),
    "none at all": [],
    "left out": None,
}


@pytest.fixture
def writer() -> SpanWriter:
    return SpanWriter(IDENTITY.resource(), scope())


def same(spans: list[ReadableSpan]) -> bool:
    ours, theirs = encode(spans), encode_spans(spans)
    return ours == theirs and ours.SerializeToString() == theirs.SerializeToString()


def test_a_root_with_nothing_on_it(writer: SpanWriter) -> None:
    writer.write("sage.request", ROOT, None, 1, 2, {})
    assert same(writer.spans)


@pytest.mark.parametrize("kind", [SpanKind.INTERNAL, SpanKind.SERVER, SpanKind.CLIENT])
def test_everything_a_span_can_have(writer: SpanWriter, kind: SpanKind) -> None:
    writer.write(
        "sage.request",
        OWN,
        CALLER,
        1_700_000_000_000_000_000,
        1_700_000_000_000_000_001,
        EVERY_KIND,
        kind=kind,
        failed="why, in words",
        events=[event("sage.first_token", 5), event("sage.candidate", 6, EVERY_KIND)],
        links=[Link(ROOT, {"sage.link": "retry_of"}), Link(CALLER)],
    )
    writer.write("sage.queue", ROOT, OWN, 3, 4, {"sage.queue.resumed": False})
    assert len(encode(writer.spans).resource_spans[0].scope_spans[0].spans) == 2
    assert same(writer.spans)
