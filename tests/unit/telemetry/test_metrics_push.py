"""The thread that pushes metrics outlives whatever goes wrong in one push."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData

from sage_telemetry.endpoints import OtlpEndpoint
from sage_telemetry.instrument import Instrument, Kind
from sage_telemetry.meter import Meter
from sage_telemetry.metrics_push import MetricsPush
from sage_telemetry.resource import Identity

CALLS = Instrument(name="t.calls", kind=Kind.COUNTER, unit="{call}", help="Calls.", labels={"who": "anyone"})
NOBODY = OtlpEndpoint("127.0.0.1:9", secure=False)
IDENTITY = Identity(service="scheduler", instance_id="test")


class Exporter:
    """In the SDK's place: fails three times, then takes what it is given."""

    def __init__(self) -> None:
        self.failures = 3
        self.taken = threading.Event()

    def export(self, data: MetricsData) -> MetricExportResult:
        if self.failures:
            self.failures -= 1
            raise ValueError("a defect")
        self.taken.set()
        return MetricExportResult.SUCCESS


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Exporter:
    made = Exporter()
    monkeypatch.setattr(OTLPMetricExporter, "export", lambda _, data: made.export(data))
    return made


@pytest.fixture
def push(exporter: Exporter) -> Iterator[MetricsPush]:
    made = MetricsPush(Meter((CALLS,)), NOBODY, IDENTITY, interval_s=0.01)
    yield made
    made.close()


def test_a_push_that_fails_is_told_of_once_and_the_next_ones_are_made(
    push: MetricsPush, exporter: Exporter, caplog: pytest.LogCaptureFixture
) -> None:
    push.start()
    assert exporter.taken.wait(10)
    assert len([r for r in caplog.records if "cannot push metrics" in r.message]) == 1
