"""Sends log records to an OTLP receiver from a thread of its own, so that nobody waits for the receiver."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import SEVERITY_NUMBER_INFO, LogRecord, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from sage_telemetry.endpoints import OtlpEndpoint
from sage_telemetry.otlp_attributes import AttributeEncoder, Attributes
from sage_telemetry.resource import Identity, scope

log = logging.getLogger(__name__)

R = TypeVar("R")

QUEUED_LIMIT = 20_000
"""Records that may wait for the thread; further ones are dropped and counted."""

BATCH = 256
"""Records of one message: about 150 KB of usage records."""

YIELD_EVERY = 16
"""Records after which the thread releases the interpreter, because the event loop has tokens to relay."""

TIMEOUT_S = 5.0
"""How long one message may take, all tries together."""

CLOSE_S = 1.0
"""How long ``close`` waits for what is left."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is sent of one record."""

    at: float  # seconds since 1970
    attributes: Attributes


class LogCounts(NamedTuple):
    """Records so far."""

    delivered: int
    overflowed: int  # dropped at the queue's bound
    not_delivered: int


class LogExport(Generic[R]):
    """A queue of records of one kind, and the thread that sends them."""

    def __init__(
        self, endpoint: OtlpEndpoint, identity: Identity, event_name: str, entry_of: Callable[[R], Entry]
    ) -> None:
        """Prepare the exporter.  ``event_name``: of every record.  ``entry_of`` is called in the thread."""
        self._target = endpoint.target
        self._entry_of = entry_of
        self._event_name = event_name
        self._empty = _empty_request(identity)
        self._otlp = LogExporter(endpoint=endpoint.target, insecure=not endpoint.secure, timeout=TIMEOUT_S)
        self._queue: deque[R] = deque()
        self._more, self._closing = threading.Event(), threading.Event()
        self._delivered = self._overflowed = self._not_delivered = 0
        self._failing = False  # the latest message was not delivered
        self._thread = threading.Thread(target=self._run, name="log-export", daemon=True)

    @property
    def counts(self) -> LogCounts:
        """What became of the records so far; those that wait are not counted."""
        return LogCounts(self._delivered, self._overflowed, self._not_delivered)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, records: Sequence[R]) -> None:
        """Queue records without waiting; those beyond QUEUED_LIMIT are dropped and counted."""
        room = max(0, QUEUED_LIMIT - len(self._queue))
        self._queue.extend(records[:room])
        self._overflowed += max(0, len(records) - room)
        self._more.set()

    def close(self) -> None:
        """Send what is queued, if the receiver takes it in time.  Blocks for about CLOSE_S.  Idempotent."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._more.set()
        started = self._thread.is_alive()
        if started:
            self._thread.join(CLOSE_S)
        self._otlp.shutdown()  # ends a call that is still under way, and with it the thread
        if started:
            self._thread.join(CLOSE_S)  # it counts what is left

    # --- in the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        until = float("inf")
        while not self._closing.is_set() or (self._queue and time.monotonic() < until):
            self._more.wait()
            self._more.clear()
            if self._closing.is_set():
                until = min(until, time.monotonic() + CLOSE_S)
            while self._queue and time.monotonic() < until:
                self._send([self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))])
        self._not_delivered += len(self._queue)

    def _send(self, records: Sequence[R]) -> None:
        try:
            delivered = self._otlp.export(self._request(records)).name == "SUCCESS"  # type: ignore[arg-type]
        except Exception:  # a defect in one message must not end those that follow
            delivered = False
            if not (self._failing or self._closing.is_set()):
                log.exception("cannot send %s records to %s", self._event_name, self._target)
                self._failing = True
        if delivered:
            self._delivered += len(records)
        else:
            self._not_delivered += len(records)
        self._tell(failing=not delivered)

    def _tell(self, *, failing: bool) -> None:
        if failing and not self._failing:
            log.warning("%s records do not reach %s and are dropped", self._event_name, self._target)
        elif self._failing and not failing:
            dropped = self._not_delivered
            log.info("%s records reach %s again; %d were dropped so far", self._event_name, self._target, dropped)
        self._failing = failing

    def _request(self, records: Sequence[R]) -> ExportLogsServiceRequest:
        request = ExportLogsServiceRequest()
        request.CopyFrom(self._empty)
        scoped = request.resource_logs[0].scope_logs[0]
        for number, record in enumerate(records):
            self._add(scoped, self._entry_of(record))
            if number % YIELD_EVERY == 0:
                time.sleep(0)
        return request

    def _add(self, scoped: ScopeLogs, entry: Entry) -> None:
        ns = int(entry.at * 1e9)
        made = scoped.log_records.add(
            time_unix_nano=ns,
            observed_time_unix_nano=ns,
            severity_number=SEVERITY_NUMBER_INFO,
            severity_text="INFO",
            event_name=self._event_name,
        )
        made.body.string_value = self._event_name
        made.MergeFromString(_ATTRIBUTES(entry.attributes))


class LogExporter(OTLPLogExporter):
    """The SDK's exporter, for a request that has been written already.

    It overrides methods that the SDK keeps to itself; pyproject.toml bounds the versions, test_sdk_hooks.py names them.
    """

    def _translate_data(self, data: Any) -> ExportLogsServiceRequest:
        request: ExportLogsServiceRequest = data
        return request

    def _count_data(self, data: Any) -> int:
        return len(data.resource_logs[0].scope_logs[0].log_records)


_ATTRIBUTES = AttributeEncoder(LogRecord)


def _empty_request(identity: Identity) -> ExportLogsServiceRequest:
    resource, own = identity.resource(), scope()
    request = ExportLogsServiceRequest()
    of_resource = request.resource_logs.add(schema_url=resource.schema_url)
    of_resource.resource.MergeFromString(AttributeEncoder(Resource)(resource.attributes))
    of_scope = of_resource.scope_logs.add()
    of_scope.scope.name = own.name
    of_scope.scope.version = own.version or ""
    return request
