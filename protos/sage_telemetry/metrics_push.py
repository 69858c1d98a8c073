"""Pushes every instrument to an OTLP receiver at an interval, from a thread of its own, with the SDK's exporter.

Values are cumulative: a push that is lost loses nothing but its moment.
"""

from __future__ import annotations

import logging
import threading
import time

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData, ResourceMetrics, ScopeMetrics

from sage_telemetry.endpoints import OtlpEndpoint
from sage_telemetry.meter import Meter
from sage_telemetry.otlp_metrics import otlp_metric
from sage_telemetry.resource import Identity, scope

log = logging.getLogger(__name__)

TIMEOUT_S = 5.0
"""How long one push may take, all tries together."""
CLOSE_S = 1.0
"""How long ``close`` waits for the last push."""


class MetricsPush:
    """The thread that reads a meter and pushes what it read.  A failed push is logged; the next ones are made."""

    def __init__(self, meter: Meter, endpoint: OtlpEndpoint, identity: Identity, *, interval_s: float) -> None:
        """Prepare the exporter.  ``interval_s``: seconds between two pushes."""
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
        """Start the thread; its first push comes after one interval."""
        self._thread.start()

    def close(self) -> None:
        """End the thread after a last push.  Blocks for at most CLOSE_S.  Idempotent."""
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
            failing = self._otlp.export(self._data()) is not MetricExportResult.SUCCESS
        except Exception:  # a defect in one push must not end those that follow
            if self._closing.is_set():
                return  # its channel was closed under it: there was no more time
            if not self._failing:
                log.exception("cannot push metrics to %s", self._target)
            self._failing = True
            return
        if failing and not self._failing:
            log.warning("metrics do not reach %s", self._target)
        elif self._failing and not failing:
            log.info("metrics reach %s again", self._target)
        self._failing = failing

    def _data(self) -> MetricsData:
        """Read the meter; an instrument without a value is left out."""
        readings, now_ns = self._meter.read(), time.time_ns()
        metrics = [otlp_metric(each, family, self._started_ns, now_ns) for each, family in readings if family.samples]
        scoped = ScopeMetrics(scope=self._scope, metrics=metrics, schema_url="")
        return MetricsData([ResourceMetrics(resource=self._resource, scope_metrics=[scoped], schema_url="")])
