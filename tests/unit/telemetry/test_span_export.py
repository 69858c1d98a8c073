"""The queue between the event loop and the receiver: bounded, never waited for, counted."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import SpanContext

from sage_telemetry.catalogue import BOTH, TRACE_SPANS
from sage_telemetry.endpoints import OtlpEndpoint
from sage_telemetry.exports import BATCH_WITH_CONTENT, Exports
from sage_telemetry.meter import Meter
from sage_telemetry.resource import Identity
from sage_telemetry.sdk_logs import Seldom
from sage_telemetry.settings import TelemetrySettings
from sage_telemetry.span_export import DEFAULT_LIMITS, RequestExporter, SpanExport
from sage_telemetry.spans import SpanWriter, empty_request
from sage_telemetry.trace_context import HeadSampling
from scheduler_svc.telemetry.request_content import CONTENT_LIMIT
from tests.support.otlp_values import values

NOBODY = OtlpEndpoint("127.0.0.1:9", secure=False)
IDENTITY = Identity(service="scheduler", instance_id="test")
QUICK = replace(DEFAULT_LIMITS, queue=10, interval_s=0.02, timeout_s=0.5, close_s=0.5)
CONTEXT = HeadSampling(1.0).begin(None)


class TwoSpans:
    context: SpanContext = CONTEXT
    span_count = 2

    def write_spans(self, writer: SpanWriter) -> None:
        for _ in range(2):
            writer.write("sage.request", CONTEXT, None, 1, 2, {"sage.tenant": "blue", "sage.adapter": None})


class Broken:
    context: SpanContext = CONTEXT
    span_count = 1

    def write_spans(self, writer: SpanWriter) -> None:
        raise RuntimeError("a defect")


class Receiver:
    """In the SDK exporter's place: keeps what it is handed, once it is let."""

    def __init__(self) -> None:
        self.service = ""
        self.sizes: list[int] = []  # spans of each call
        self.spans: list[Span] = []
        self.called = threading.Event()
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.result = SpanExportResult.SUCCESS

    def send(self, request: ExportTraceServiceRequest) -> SpanExportResult:
        self.called.set()
        assert self.may_go_on.wait(10)
        (resource_spans,) = request.resource_spans
        self.service = values(resource_spans.resource.attributes)["service.name"]
        self.spans += resource_spans.scope_spans[0].spans
        self.sizes.append(len(resource_spans.scope_spans[0].spans))
        return self.result


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Receiver:
    made = Receiver()
    monkeypatch.setattr(RequestExporter, "send", lambda _, request: made.send(request))
    return made


@pytest.fixture
def export(receiver: Receiver) -> Iterator[SpanExport]:
    made = SpanExport(NOBODY, IDENTITY, QUICK)
    made.start()
    yield made
    receiver.may_go_on.set()
    made.close()


def counted(export: SpanExport) -> dict[str, float]:
    return {labels[0]: value for labels, value in export.observed()[TRACE_SPANS]}


def test_spans_are_made_by_the_thread_and_delivered(export: SpanExport, receiver: Receiver) -> None:
    export.put(TwoSpans())
    export.close()
    assert [span.name for span in receiver.spans] == ["sage.request"] * 2
    assert values(receiver.spans[0].attributes) == {"sage.tenant": "blue"}
    assert receiver.service == "sage-scheduler"
    assert counted(export) == {"exported": 2, "dropped_queue_full": 0, "dropped_not_delivered": 0}


def test_while_the_receiver_is_slow_the_queue_fills_and_then_drops_the_newest_and_counts(
    export: SpanExport, receiver: Receiver
) -> None:
    receiver.may_go_on.clear()
    export.put(TwoSpans())
    assert receiver.called.wait(10)
    for _ in range(25):
        export.put(TwoSpans())
    assert counted(export) == {"exported": 0, "dropped_queue_full": 2 * 15, "dropped_not_delivered": 0}
    receiver.may_go_on.set()
    export.close()
    assert counted(export) == {"exported": 2 * 11, "dropped_queue_full": 2 * 15, "dropped_not_delivered": 0}


def test_what_is_refused_is_counted_and_complained_about_once(
    export: SpanExport, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.result = SpanExportResult.FAILURE
    for _ in range(3):
        receiver.called.clear()
        export.put(TwoSpans())
        assert receiver.called.wait(10)
    export.close()
    assert counted(export)["dropped_not_delivered"] == 6
    assert len([r for r in caplog.records if "spans do not reach" in r.message]) == 1


def test_nobody_there_is_not_waited_for_at_the_end() -> None:
    export = SpanExport(NOBODY, IDENTITY, replace(QUICK, timeout_s=60.0))
    export.start()
    for _ in range(5):
        export.put(TwoSpans())
    started = time.monotonic()
    export.close()
    assert time.monotonic() - started < 5
    assert counted(export) == {"exported": 0, "dropped_queue_full": 0, "dropped_not_delivered": 10}


def test_what_comes_after_the_end_is_dropped_and_counted(export: SpanExport) -> None:
    export.close()
    export.put(TwoSpans())
    assert counted(export)["dropped_not_delivered"] == 2


def test_a_defect_in_one_does_not_end_the_others(
    export: SpanExport, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    export.put(Broken())
    export.put(TwoSpans())
    export.close()
    assert counted(export) == {"exported": 2, "dropped_queue_full": 0, "dropped_not_delivered": 1}
    assert [r.levelno for r in caplog.records if "cannot be made" in r.message] == [logging.ERROR]


def test_a_defect_in_sending_is_logged_once_and_its_spans_are_counted(
    export: SpanExport, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def defective(_: object, request: ExportTraceServiceRequest) -> SpanExportResult:
        receiver.called.set()
        raise ValueError("a defect")

    monkeypatch.setattr(RequestExporter, "send", defective)
    for _ in range(2):
        receiver.called.clear()
        export.put(TwoSpans())
        assert receiver.called.wait(10)
    export.close()
    assert counted(export)["dropped_not_delivered"] == 4
    assert len([r for r in caplog.records if "spans cannot be sent" in r.message]) == 1


def test_nothing_is_sent_where_nothing_could_be_made(export: SpanExport, receiver: Receiver) -> None:
    export.put(Broken())
    export.close()
    assert not receiver.called.is_set()
    assert counted(export)["dropped_not_delivered"] == 1


@pytest.mark.parametrize(("content", "most"), [(False, DEFAULT_LIMITS.batch), (True, BATCH_WITH_CONTENT)])
def test_messages_with_prompts_and_outputs_are_of_fewer_requests(receiver: Receiver, content: bool, most: int) -> None:
    settings = TelemetrySettings(otlp_endpoint=f"http://{NOBODY.target}", content=content, trace_push_interval_s=60.0)
    exports = Exports(settings, IDENTITY, Meter(BOTH))
    assert exports.spans is not None
    exports.spans.start()
    for _ in range(DEFAULT_LIMITS.batch):
        exports.spans.put(TwoSpans())
    exports.spans.close()
    assert sum(receiver.sizes) == 2 * DEFAULT_LIMITS.batch
    assert max(receiver.sizes) == 2 * most


def test_a_message_is_taken_whatever_prompts_and_outputs_are_written_in() -> None:
    """A receiver takes 4 MB unless it is told otherwise."""
    writer = SpanWriter(empty_request(IDENTITY))
    for _ in range(BATCH_WITH_CONTENT):
        text = json.dumps(CONTENT_LIMIT * "\x01", ensure_ascii=False)  # nothing is longer once it is written
        attributes = {"gen_ai.input.messages": text, "gen_ai.output.messages": text}
        writer.write("sage.request", CONTEXT, None, 1, 2, attributes)
    assert writer.request.ByteSize() < 4_000_000


def test_the_exporters_lines_come_seldom() -> None:
    seldom = Seldom(every_s=3_600)
    record = logging.LogRecord("x", logging.WARNING, "x.py", 1, "Transient error %s", ("UNAVAILABLE",), None)
    other = logging.LogRecord("x", logging.ERROR, "x.py", 1, "Failed to export %s", ("traces",), None)
    assert [seldom.filter(each) for each in (record, record, other)] == [True, False, True]
