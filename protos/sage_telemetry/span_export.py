"""Takes spans from the event loop to an OTLP receiver, without the loop ever waiting for it.

A bounded queue and a thread.  Whatever the receiver does, ``put`` costs an append: at the queue's bound the newest
notes are dropped, a batch that cannot be delivered is dropped after a few tries, and both are counted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

from sage_telemetry.catalogue import TRACE_SPANS
from sage_telemetry.endpoints import OtlpEndpoint
from sage_telemetry.meter import Observed
from sage_telemetry.otlp import may_retry, open_channel, why
from sage_telemetry.resource import Identity, scope
from sage_telemetry.spans import SpanSource, SpanWriter

log = logging.getLogger(__name__)

BREATH = 8
"""After so many sources the thread lets go of the interpreter: the event loop has tokens to relay."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportLimits:
    queue: int = 4_096  # sources (requests, attempts) that wait for the thread
    batch: int = 512  # spans of one call
    interval_s: float = 1.0  # between two calls while less than a batch waits
    timeout_s: float = 5.0  # of one call
    tries: int = 3  # of one batch
    backoff_s: float = 0.5  # before the second try, then doubling
    close_s: float = 1.0  # to deliver the rest when the service ends


DEFAULT_LIMITS = ExportLimits()


class SpanExport:
    def __init__(self, endpoint: OtlpEndpoint, identity: Identity, limits: ExportLimits = DEFAULT_LIMITS) -> None:
        self._endpoint = endpoint
        self._limits = limits
        self._identity = identity
        self._queue: deque[SpanSource] = deque()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._complained = False  # the latest batch was not delivered
        self.exported = 0  # spans; the thread counts these two
        self.not_delivered = 0
        self.overflowed = 0  # sources; the loop counts this one
        self._channel = open_channel(endpoint)
        self._thread = threading.Thread(target=self._run, name="span-export", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, source: SpanSource) -> None:
        """Take over what is over.  Never waits; at the queue's bound the source is dropped and counted."""
        if len(self._queue) >= self._limits.queue:
            self.overflowed += 1
            return
        self._queue.append(source)

    def close(self) -> None:
        """Deliver what waits if the receiver takes it in time.  Blocks for at most ``close_s``.  Idempotent."""
        self._closing.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(self._limits.close_s)
        self._channel.close()  # ends a call that is still under way, and with it the thread

    def observed(self) -> Observed:
        return {
            TRACE_SPANS: [
                (("exported",), float(self.exported)),
                (("dropped_queue_full",), float(self.overflowed)),
                (("dropped_not_delivered",), float(self.not_delivered)),
            ]
        }

    # --- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        stub = TraceServiceStub(self._channel)  # type: ignore[no-untyped-call]
        while not self._closing.is_set():
            self._wake.wait(self._limits.interval_s)
            self._drain(stub)
        self._drain(stub)

    def _drain(self, stub: TraceServiceStub) -> None:
        deadline = time.monotonic() + self._limits.close_s
        while self._queue:
            if self._closing.is_set() and time.monotonic() > deadline:
                self.not_delivered += len(self._queue)
                self._queue.clear()
                return
            request, spans = self._batch()
            if spans:
                self._deliver(stub, request, spans)

    def _batch(self) -> tuple[ExportTraceServiceRequest, int]:
        request = ExportTraceServiceRequest()
        resource_spans = request.resource_spans.add(resource=self._identity.resource())
        writer = SpanWriter(resource_spans.scope_spans.add(scope=scope()))
        taken = 0
        while self._queue and len(writer) < self._limits.batch:
            source = self._queue.popleft()
            try:
                source.write_spans(writer)
            except Exception:  # a defect in writing one must not end the export of all others
                log.exception("the spans of a %s cannot be written", type(source).__name__)
                self.not_delivered += 1
            taken += 1
            if taken % BREATH == 0:
                time.sleep(0)
        return request, len(writer)

    def _deliver(self, stub: TraceServiceStub, request: ExportTraceServiceRequest, spans: int) -> None:
        backoff_s = self._limits.backoff_s
        for remaining in reversed(range(self._limits.tries)):
            try:
                answer = stub.Export(request, timeout=self._limits.timeout_s)
            except grpc.RpcError as error:
                if remaining and may_retry(error) and not self._closing.wait(backoff_s):
                    backoff_s *= 2
                    continue
                self.not_delivered += spans
                self._complain(why(error))
                return
            except ValueError:  # the channel is closed: there was no more time
                self.not_delivered += spans
                return
            rejected = answer.partial_success.rejected_spans
            self.exported += spans - rejected
            self.not_delivered += rejected
            self._recover()
            return

    def _complain(self, reason: str) -> None:
        """Once: a receiver that stays away would fill the log."""
        if not self._complained:
            self._complained = True
            log.warning("spans do not reach %s and are dropped: %s", self._endpoint.target, reason)

    def _recover(self) -> None:
        if self._complained:
            self._complained = False
            log.info("spans reach %s again; %d were dropped so far", self._endpoint.target, self.not_delivered)
