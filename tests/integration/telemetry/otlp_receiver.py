"""An OTLP receiver in the test's own process: what a collector would be sent."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tests.support.eventually import eventually
from tests.support.otlp_values import values


@dataclass(frozen=True, slots=True)
class Span:
    """A span as it arrived, and who sent it."""

    service: str
    wire: WireSpan

    @property
    def name(self) -> str:
        return self.wire.name

    @property
    def trace_id(self) -> str:
        return self.wire.trace_id.hex()

    @property
    def span_id(self) -> str:
        return self.wire.span_id.hex()

    @property
    def parent_id(self) -> str:
        return self.wire.parent_span_id.hex()

    @property
    def attributes(self) -> dict[str, Any]:
        return values(self.wire.attributes)

    @property
    def events(self) -> list[str]:
        return [event.name for event in self.wire.events]

    @property
    def failed(self) -> bool:
        return self.wire.status.code == Status.STATUS_CODE_ERROR

    @property
    def links(self) -> list[str]:
        """Span ids."""
        return [link.span_id.hex() for link in self.wire.links]

    def within(self, other: Span, slack_ns: int = 0) -> bool:
        start, end = self.wire.start_time_unix_nano, self.wire.end_time_unix_nano
        return other.wire.start_time_unix_nano - slack_ns <= start <= end <= other.wire.end_time_unix_nano + slack_ns


@dataclass(slots=True)
class Tree:
    """One trace."""

    spans: list[Span]

    def all(self, name: str) -> list[Span]:
        return sorted((s for s in self.spans if s.name == name), key=lambda s: s.wire.start_time_unix_nano)

    def one(self, name: str) -> Span:
        found = self.all(name)
        assert len(found) == 1, f"{len(found)} spans {name!r} among {sorted(s.name for s in self.spans)}"
        return found[0]

    def drawn(self, parent_id: str) -> list[Any]:
        """Names below a span, as nested lists in the order of their start: [name, [children...], ...]."""
        below: list[Any] = []
        for span in sorted(self.spans, key=lambda s: (s.wire.start_time_unix_nano, s.name)):
            if span.parent_id == parent_id:
                children = self.drawn(span.span_id)
                below += [span.name, children] if children else [span.name]
        return below


@dataclass(slots=True)
class OtlpReceiver:
    """``delay_s``: how long it takes to answer; ``refuses``: it answers UNAVAILABLE."""

    delay_s: float = 0.0
    refuses: bool = False
    spans: list[Span] = field(default_factory=list)
    metrics: dict[str, dict[str, Metric]] = field(default_factory=dict)  # by service, by name
    logs: list[tuple[str, LogRecord]] = field(default_factory=list)  # each with its service
    calls: int = 0
    raw: list[bytes] = field(default_factory=list)  # every request as it came
    port: int = 0
    _server: grpc.aio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = grpc.aio.server()
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(_Traces(self), self._server)  # type: ignore[no-untyped-call]
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(_Metrics(self), self._server)  # type: ignore[no-untyped-call]
        logs_service_pb2_grpc.add_LogsServiceServicer_to_server(_Logs(self), self._server)  # type: ignore[no-untyped-call]
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        await self._server.stop(grace=0)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def tree(self, trace_id: str) -> Tree:
        return Tree([span for span in self.spans if span.trace_id == trace_id])

    async def until(self, trace_id: str, *names: str) -> Tree:
        """The trace, once it holds spans of these names, each as often as it is named."""

        def there() -> Tree | None:
            tree = self.tree(trace_id)
            missing = [name for name in set(names) if len(tree.all(name)) < names.count(name)]
            return None if missing else tree

        return await eventually(there, what=f"spans {', '.join(names)} of trace {trace_id}")

    async def answer(self, request: Any, context: Any) -> None:
        self.calls += 1
        self.raw.append(request.SerializeToString())
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if self.refuses:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")


class _Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, receiver: OtlpReceiver) -> None:
        self._receiver = receiver

    async def Export(self, request: Any, context: Any) -> Any:
        await self._receiver.answer(request, context)
        for resource_spans in request.resource_spans:
            service = values(resource_spans.resource.attributes)["service.name"]
            for scope in resource_spans.scope_spans:
                self._receiver.spans += [Span(service, span) for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


class _Logs(logs_service_pb2_grpc.LogsServiceServicer):
    def __init__(self, receiver: OtlpReceiver) -> None:
        self._receiver = receiver

    async def Export(self, request: Any, context: Any) -> Any:
        await self._receiver.answer(request, context)
        for resource_logs in request.resource_logs:
            service = values(resource_logs.resource.attributes)["service.name"]
            for scope in resource_logs.scope_logs:
                self._receiver.logs += [(service, record) for record in scope.log_records]
        return logs_service_pb2.ExportLogsServiceResponse()


class _Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self, receiver: OtlpReceiver) -> None:
        self._receiver = receiver

    async def Export(self, request: Any, context: Any) -> Any:
        await self._receiver.answer(request, context)
        for resource_metrics in request.resource_metrics:
            service = values(resource_metrics.resource.attributes)["service.name"]
            kept = self._receiver.metrics.setdefault(service, {})
            for scope in resource_metrics.scope_metrics:
                kept.update({metric.name: metric for metric in scope.metrics})
        return metrics_service_pb2.ExportMetricsServiceResponse()
