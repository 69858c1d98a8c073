"""The queue between the event loop and the receiver: bounded, never waited for, counted."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import SpanContext

from sage_telemetry.catalogue import TRACE_SPANS
from sage_telemetry.endpoints import OtlpEndpoint
from sage_telemetry.resource import Identity
from sage_telemetry.sdk_logs import RateLimit
from sage_telemetry.span_export import DEFAULT_LIMITS, RequestExporter, SpanExport
from sage_telemetry.spans import SpanWriter
from sage_telemetry.trace_context import HeadSampling
from scheduler_svc.control.requests.submission import ChatPrompt
from scheduler_svc.control.requests.tokenizers import ChatTurn, Conversation
from scheduler_svc.telemetry.request_content import CONTENT_LIMIT, messages
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


class Talkative:
    """With as much of what was asked and answered as one request may have on its span."""

    context: SpanContext = CONTEXT
    span_count = 1

    def write_spans(self, writer: SpanWriter) -> None:
        turns = tuple(ChatTurn(role="r" * 100, text="\x01") for _ in range(CONTENT_LIMIT))
        asked = json.dumps(
            [
                {"role": r, "parts": [{"content": t}]}
                for r, t in messages(ChatPrompt(conversation=Conversation(turns=turns)))
            ]
        )
        answered = json.dumps(CONTENT_LIMIT * "\x01")  # nothing is longer once it is written
        attributes = {"gen_ai.input.messages": asked, "gen_ai.output.messages": answered, "sage.failure": 10 * answered}
        writer.write("sage.request", CONTEXT, None, 1, 2, attributes)


class Broken:
    context: SpanContext = CONTEXT
    span_count = 1

    def write_spans(self, writer: SpanWriter) -> None:
        raise RuntimeError("a defect")


class Receiver:
    """In the SDK exporter's place: keeps what it is handed, once it is let."""

    def __init__(self) -> None:
        self.service = ""
        self.sizes: list[int] = []  # bytes of each call
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
        self.sizes.append(request.ByteSize())
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
    assert [r.levelno for r in caplog.records if "cannot make the spans" in r.message] == [logging.ERROR]


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
    assert len([r for r in caplog.records if "cannot send spans" in r.message]) == 1


def test_nothing_is_sent_where_nothing_could_be_made(export: SpanExport, receiver: Receiver) -> None:
    export.put(Broken())
    export.close()
    assert not receiver.called.is_set()
    assert counted(export)["dropped_not_delivered"] == 1


def test_messages_stay_below_what_a_receiver_takes_whatever_is_on_their_spans(
    export: SpanExport, receiver: Receiver
) -> None:
    for _ in range(QUICK.queue):
        export.put(Talkative())
    export.close()
    assert len(receiver.spans) == QUICK.queue
    assert len(receiver.sizes) > 1
    assert max(receiver.sizes) < 4_000_000
    assert counted(export)["exported"] == QUICK.queue


@pytest.mark.parametrize(
    "wrong", [object(), b"bytes", "\ud800", 2**63], ids=["object", "bytes", "surrogate", "too long"]
)
def test_of_a_source_that_fails_half_way_nothing_is_sent_and_all_is_counted(
    export: SpanExport, receiver: Receiver, wrong: Any
) -> None:
    class HalfWay(TwoSpans):
        def write_spans(self, writer: SpanWriter) -> None:
            writer.write("sage.request", CONTEXT, None, 1, 2, {})
            writer.write("sage.queue", CONTEXT, None, 1, 2, {"sage.tenant": "blue", "sage.adapter": wrong})

    export.put(TwoSpans())
    export.put(HalfWay())
    export.put(TwoSpans())
    export.close()
    assert [span.name for span in receiver.spans] == ["sage.request"] * 4
    assert counted(export) == {"exported": 4, "dropped_queue_full": 0, "dropped_not_delivered": 2}


class RefusesOnce(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self) -> None:
        self.calls: list[ExportTraceServiceRequest] = []

    def Export(self, request: ExportTraceServiceRequest, context: grpc.ServicerContext) -> ExportTraceServiceResponse:
        self.calls.append(request)
        if len(self.calls) == 1:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "not now")
        return ExportTraceServiceResponse()


def test_a_receiver_that_turns_a_message_down_for_now_gets_the_same_again() -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    receiver = RefusesOnce()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(receiver, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    export = SpanExport(
        OtlpEndpoint(f"127.0.0.1:{port}", secure=False), IDENTITY, replace(QUICK, timeout_s=10.0, close_s=10.0)
    )
    export.start()
    export.put(TwoSpans())
    export.close()
    server.stop(grace=None).wait(5)
    assert len(receiver.calls) == 2
    assert receiver.calls[0] == receiver.calls[1]
    assert counted(export) == {"exported": 2, "dropped_queue_full": 0, "dropped_not_delivered": 0}


def test_the_exporters_lines_come_seldom() -> None:
    limit = RateLimit(interval_s=3_600)
    record = logging.LogRecord("x", logging.WARNING, "x.py", 1, "Transient error %s", ("UNAVAILABLE",), None)
    other = logging.LogRecord("x", logging.ERROR, "x.py", 1, "Failed to export %s", ("traces",), None)
    assert [limit.filter(each) for each in (record, record, other)] == [True, False, True]
