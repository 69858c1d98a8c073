"""Pushes every instrument to an OTLP receiver, from a thread of its own, by the SDK's exporter.  Values are cumulative:
a push that is lost loses nothing but its moment."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)

from sage_telemetry.endpoints import OtlpEndpoint
from sage_telemetry.instrument import Kind
from sage_telemetry.meter import Labels, Meter, Reading
from sage_telemetry.resource import Identity, scope

log = logging.getLogger(__name__)

TIMEOUT_S = 5.0  # of one push, all tries together
CLOSE_S = 1.0
_CUMULATIVE = AggregationTemporality.CUMULATIVE


class MetricsPush:
    def __init__(self, meter: Meter, endpoint: OtlpEndpoint, identity: Identity, *, interval_s: float) -> None:
        self._meter = meter
        self._target = endpoint.target
        self._interval_s = interval_s
        self._resource, self._scope = identity.resource(), scope()
        self._started_ns = time.time_ns()
        self._closing = threading.Event()
        self._failing = False  # the latest push was not delivered
        self._otlp = OTLPMetricExporter(endpoint=endpoint.target, insecure=not endpoint.secure, timeout=TIMEOUT_S)
        self._thread = threading.Thread(target=self._run, name="metrics-push", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """After a last push.  Blocks for at most CLOSE_S.  Idempotent."""
        if self._closing.is_set():
            return
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_S)
        self._otlp.shutdown()  # ends a call that is still under way, and with it the thread

    def _run(self) -> None:
        while not self._closing.wait(self._interval_s):
            self._push()
        self._push()

    def _push(self) -> None:
        try:
            data = self.data(self._meter.read(), time.time_ns())
            failing = self._otlp.export(data) is not MetricExportResult.SUCCESS
        except Exception:  # a defect in one push must not end those that follow
            if self._closing.is_set():
                return  # its channel was closed under it: there was no more time
            if not self._failing:
                log.exception("metrics cannot be pushed to %s", self._target)
            self._failing = True
            return
        if failing and not self._failing:
            log.warning("metrics do not reach %s", self._target)
        elif self._failing and not failing:
            log.info("metrics reach %s again", self._target)
        self._failing = failing

    def data(self, readings: list[Reading], now_ns: int) -> MetricsData:
        metrics = [self._metric(reading, now_ns) for reading in readings if reading.numbers or reading.buckets]
        scoped = ScopeMetrics(scope=self._scope, metrics=metrics, schema_url="")
        return MetricsData([ResourceMetrics(resource=self._resource, scope_metrics=[scoped], schema_url="")])

    def _metric(self, reading: Reading, now_ns: int) -> Metric:
        instrument = reading.instrument
        data: Sum | Gauge | Histogram
        if instrument.kind is Kind.HISTOGRAM:
            data = Histogram(list(self._distributions(reading, now_ns)), _CUMULATIVE)
        elif instrument.kind is Kind.COUNTER:
            data = Sum(list(self._numbers(reading, now_ns)), _CUMULATIVE, is_monotonic=True)
        else:
            data = Gauge(list(self._numbers(reading, now_ns)))
        return Metric(name=instrument.name, description=instrument.help, unit=instrument.unit, data=data)

    def _numbers(self, reading: Reading, now_ns: int) -> Iterator[NumberDataPoint]:
        for labels, value in reading.numbers:
            yield NumberDataPoint(_named(reading, labels), self._started_ns, now_ns, float(value))

    def _distributions(self, reading: Reading, now_ns: int) -> Iterator[HistogramDataPoint]:
        for labels, buckets in reading.buckets:
            yield HistogramDataPoint(
                attributes=_named(reading, labels),
                start_time_unix_nano=self._started_ns,
                time_unix_nano=now_ns,
                count=sum(buckets.counts),
                sum=buckets.sum,
                bucket_counts=buckets.counts,
                explicit_bounds=reading.instrument.buckets,
                min=None,  # type: ignore[arg-type]  # optional in OTLP, and left out
                max=None,  # type: ignore[arg-type]
            )


def _named(reading: Reading, labels: Labels) -> dict[str, str]:
    return dict(zip(reading.instrument.label_names, labels, strict=True))
