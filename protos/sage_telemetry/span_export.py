"""Sends spans to an OTLP receiver without the event loop ever waiting for it.

The SDK's batch processor provides the queue and the thread, its OTLP exporter sends and retries.  The queue holds
notes, from which the thread makes spans.  ``SpanExport.put`` only appends, even while the receiver does not answer:
notes beyond the queue's bound and batches that are not delivered in time are dropped and counted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from sage_telemetry.catalogue import TRACE_SPANS
from sage_telemetry.endpoints import OtlpEndpoint
from sage_telemetry.meter import Observed
from sage_telemetry.resource import Identity
from sage_telemetry.spans import SpanSource, SpanWriter, empty_request

log = logging.getLogger(__name__)

YIELD_EVERY = 8
"""Sources after which the thread releases the interpreter, because the event loop has tokens to relay."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportLimits:
    """The bounds of one export."""

    queue: int = 4_096  # sources (requests, attempts) that wait for the thread
    batch: int = 128  # sources that are taken from the queue together
    message_bytes: int = 2_000_000  # size from which on a message is sent; receivers take 4 MB by default
    interval_s: float = 1.0  # between two batches while less than a full one waits
    timeout_s: float = 5.0  # to deliver one message, all tries together
    close_s: float = 1.0  # to deliver what is left when the service ends


DEFAULT_LIMITS = ExportLimits()


class SpanExport:
    """The queue between the event loop and the exporter's thread."""

    def __init__(self, endpoint: OtlpEndpoint, identity: Identity, limits: ExportLimits = DEFAULT_LIMITS) -> None:
        """Prepare the exporter; ``put`` drops what comes before ``start``."""
        self._limits = limits
        self._delivery = _Delivery(endpoint, identity, limits)
        self._processor: BatchSpanProcessor | None = None
        self._put = 0  # sources; only the event loop changes this one and the next
        self._overflowed = 0  # spans

    def start(self) -> None:
        """Start the exporter's thread."""
        self._processor = BatchSpanProcessor(
            self._delivery,
            max_queue_size=self._limits.queue,
            max_export_batch_size=min(self._limits.batch, self._limits.queue),
            schedule_delay_millis=self._limits.interval_s * 1_000,
        )

    def put(self, source: SpanSource) -> None:
        """Queue a source whose notes are complete.  Never waits; at the queue's bound it is dropped and counted."""
        if self._processor is None:
            self._delivery.not_delivered += source.span_count
        elif self._put - self._delivery.taken >= self._limits.queue:
            self._overflowed += source.span_count
        else:
            self._put += 1
            self._processor.on_end(_Queued(source))

    def close(self) -> None:
        """Deliver what is queued, if the receiver takes it in time.  Blocks for about ``close_s``.  Idempotent."""
        processor, self._processor = self._processor, None
        if processor is None:
            self._delivery.shutdown()
            return
        deadline = threading.Timer(self._limits.close_s, self._delivery.shutdown)
        deadline.start()
        # Waits for the processor's thread, which gives up at the deadline.
        processor.shutdown()  # type: ignore[no-untyped-call]
        deadline.cancel()

    def observed(self) -> Observed:
        """Return the numbers of spans that were exported and dropped."""
        return {
            TRACE_SPANS: [
                (("exported",), float(self._delivery.exported)),
                (("dropped_queue_full",), float(self._overflowed)),
                (("dropped_not_delivered",), float(self._delivery.not_delivered)),
            ]
        }


class _Queued(ReadableSpan):
    """Stands for the spans of one source while it is queued."""

    def __init__(self, source: SpanSource) -> None:
        super().__init__(name="", context=source.context, resource=_NOBODY)
        self.source = source


_NOBODY = Resource.get_empty()


class RequestExporter(OTLPSpanExporter):
    """The SDK's exporter, for a request that has been written already.

    It overrides methods that the SDK keeps to itself; pyproject.toml bounds the versions, test_sdk_hooks.py names them.
    """

    def send(self, request: ExportTraceServiceRequest) -> SpanExportResult:
        """Send ``request``, with retries until the timeout."""
        return self.export(request)  # type: ignore[arg-type]  # see _translate_data

    def _translate_data(self, data: Any) -> ExportTraceServiceRequest:
        request: ExportTraceServiceRequest = data
        return request

    def _count_data(self, data: Any) -> int:
        return len(data.resource_spans[0].scope_spans[0].spans)


class _Delivery(SpanExporter):
    """Makes the spans in the processor's thread, gives them to the exporter and counts delivered and dropped ones."""

    def __init__(self, endpoint: OtlpEndpoint, identity: Identity, limits: ExportLimits) -> None:
        self._target = endpoint.target
        self._otlp = RequestExporter(endpoint=endpoint.target, insecure=not endpoint.secure, timeout=limits.timeout_s)
        self._empty = empty_request(identity)
        self._message_bytes = limits.message_bytes
        self._ended = threading.Event()
        self._failing = False  # the latest batch was not delivered
        self.taken = 0  # sources
        self.exported = 0  # spans
        self.not_delivered = 0  # spans

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Deliver the sources of one batch; SUCCESS where all of their spans arrived."""
        sources = [each.source for each in spans if isinstance(each, _Queued)]
        self.taken += len(sources)
        if self._ended.is_set():
            self.not_delivered += sum(source.span_count for source in sources)
            return SpanExportResult.FAILURE
        results = [self._deliver(message) for message in self._messages(sources)]
        return SpanExportResult.FAILURE if SpanExportResult.FAILURE in results else SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """End the call that is under way and make no more.  Idempotent."""
        if not self._ended.is_set():
            self._ended.set()
            self._otlp.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Return True."""
        return True  # nothing is queued here

    def _messages(self, sources: Sequence[SpanSource]) -> Iterator[SpanWriter]:
        """Yield messages as they get full; the last one may be empty."""
        writer = SpanWriter(self._empty)
        for number, source in enumerate(sources):
            try:
                writer.take(source)
            except Exception:  # a defect in one source must not end the export of the others
                log.exception("cannot make the spans of a %s", type(source).__name__)
                self.not_delivered += source.span_count
            if writer.size >= self._message_bytes:
                yield writer
                writer = SpanWriter(self._empty)
            if number % YIELD_EVERY == 0:
                time.sleep(0)
        yield writer

    def _deliver(self, message: SpanWriter) -> SpanExportResult:
        if not message.count:
            return SpanExportResult.SUCCESS  # there is nothing to deliver
        result = self._send(message.request)
        if result is SpanExportResult.SUCCESS:
            self.exported += message.count
        else:
            self.not_delivered += message.count
        self._log(result)
        return result

    def _send(self, request: ExportTraceServiceRequest) -> SpanExportResult:
        try:
            return self._otlp.send(request)
        except Exception:
            # At the end its channel is closed during the call; anything else is a defect, logged once.
            if not (self._ended.is_set() or self._failing):
                log.exception("cannot send spans to %s", self._target)
            return SpanExportResult.FAILURE

    def _log(self, result: SpanExportResult) -> None:
        """Log changes only: otherwise a receiver that does not answer would fill the log."""
        failing = result is not SpanExportResult.SUCCESS
        if failing and not self._failing:
            log.warning("spans do not reach %s and are dropped", self._target)
        elif self._failing and not failing:
            log.info("spans reach %s again; %d were dropped so far", self._target, self.not_delivered)
        self._failing = failing
