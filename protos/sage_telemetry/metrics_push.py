"""Pushes every instrument to an OTLP receiver, from a thread of its own.  Values are cumulative: a push that is lost
loses nothing but its moment."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub
from opentelemetry.proto.metrics.v1 import metrics_pb2

from sage_telemetry.attributes import write_attributes
from sage_telemetry.endpoints import OtlpEndpoint
from sage_telemetry.instrument import Kind
from sage_telemetry.meter import Labels, Meter, Reading
from sage_telemetry.otlp import open_channel, why
from sage_telemetry.resource import Identity, scope

log = logging.getLogger(__name__)

TIMEOUT_S = 5.0
CLOSE_S = 1.0
_CUMULATIVE = metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE


class MetricsPush:
    def __init__(self, meter: Meter, endpoint: OtlpEndpoint, identity: Identity, *, interval_s: float) -> None:
        self._meter = meter
        self._endpoint = endpoint
        self._identity = identity
        self._interval_s = interval_s
        self._started_ns = time.time_ns()
        self._closing = threading.Event()
        self._complained = False
        self._channel = open_channel(endpoint)
        self._thread = threading.Thread(target=self._run, name="metrics-push", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """After a last push.  Blocks for at most CLOSE_S.  Idempotent."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_S)
        self._channel.close()  # ends a call that is still under way, and with it the thread

    def _run(self) -> None:
        stub = MetricsServiceStub(self._channel)  # type: ignore[no-untyped-call]
        while not self._closing.wait(self._interval_s):
            self._push(stub)
        self._push(stub)

    def _push(self, stub: MetricsServiceStub) -> None:
        request = self.request(self._meter.read(), time.time_ns())
        try:
            stub.Export(request, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            if not self._complained:
                log.warning("metrics do not reach %s: %s", self._endpoint.target, why(error))
            self._complained = True
            return
        except ValueError:  # the channel is closed: there was no more time
            return
        if self._complained:
            log.info("metrics reach %s again", self._endpoint.target)
        self._complained = False

    def request(self, readings: list[Reading], now_ns: int) -> ExportMetricsServiceRequest:
        made = ExportMetricsServiceRequest()
        resource_metrics = made.resource_metrics.add(resource=self._identity.resource())
        metrics = resource_metrics.scope_metrics.add(scope=scope()).metrics
        for reading in readings:
            if reading.numbers or reading.buckets:
                self._write(metrics, reading, now_ns)
        return made

    def _write(self, metrics: Any, reading: Reading, now_ns: int) -> None:
        instrument = reading.instrument
        metric = metrics.add(name=instrument.name, description=instrument.help, unit=instrument.unit)
        if instrument.kind is Kind.HISTOGRAM:
            self._write_histogram(metric.histogram, reading, now_ns)
            return
        if instrument.kind is Kind.COUNTER:
            metric.sum.is_monotonic = True
            metric.sum.aggregation_temporality = _CUMULATIVE
            points = metric.sum.data_points
        else:
            points = metric.gauge.data_points
        for labels, value in reading.numbers:
            point = points.add(start_time_unix_nano=self._started_ns, time_unix_nano=now_ns, as_double=value)
            write_attributes(point.attributes, _named(reading, labels))

    def _write_histogram(self, histogram: metrics_pb2.Histogram, reading: Reading, now_ns: int) -> None:
        histogram.aggregation_temporality = _CUMULATIVE
        for labels, buckets in reading.buckets:
            point = histogram.data_points.add(
                start_time_unix_nano=self._started_ns,
                time_unix_nano=now_ns,
                count=sum(buckets.counts),
                sum=buckets.sum,
                bucket_counts=buckets.counts,
                explicit_bounds=reading.instrument.buckets,
            )
            write_attributes(point.attributes, _named(reading, labels))


def _named(reading: Reading, labels: Labels) -> dict[str, str]:
    return dict(zip(reading.instrument.label_names, labels, strict=True))
