"""The page that Prometheus scrapes: our instruments, and whatever else in the process registered itself with
prometheus_client (vLLM's own metrics, the process's CPU time and memory).

Served by a thread of its own: rendering a large page takes longer than a token may wait.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from wsgiref.simple_server import WSGIServer

from prometheus_client import REGISTRY, CollectorRegistry, start_http_server
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from sage_telemetry.endpoints import split_address
from sage_telemetry.instrument import Kind
from sage_telemetry.meter import Meter, Reading

STOP_TIMEOUT_S = 2.0


class CannotServe(Exception):
    """The metrics address is not to be had; one sentence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PageTls:
    """PEM files."""

    certificate: Path
    private_key: Path
    client_ca: Path | None = None  # given: a scraper must present a certificate of it


class MeterCollector(Collector):
    """Our instruments as prometheus_client's families."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def describe(self) -> Iterable[Metric]:
        return ()  # so that registering does not read anything

    def collect(self) -> Iterator[Metric]:
        return map(family, self._meter.read())


class _Everything(Collector):
    """What libraries in this process registered."""

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        yield from REGISTRY.collect()


def family(reading: Reading) -> Metric:
    instrument = reading.instrument
    name, names = instrument.prometheus_name, instrument.label_names
    if instrument.kind is Kind.HISTOGRAM:
        histogram = HistogramMetricFamily(name, instrument.help, labels=names)
        bounds = [*map(floatToGoString, instrument.buckets), "+Inf"]
        for labels, buckets in reading.buckets:
            cumulated = list(zip(bounds, accumulate(buckets.counts), strict=True))
            histogram.add_metric(labels, cumulated, buckets.sum)
        return histogram
    made = CounterMetricFamily if instrument.kind is Kind.COUNTER else GaugeMetricFamily
    numbers: CounterMetricFamily | GaugeMetricFamily = made(name, instrument.help, labels=names)
    for labels, value in reading.numbers:
        numbers.add_metric(labels, value)
    return numbers


class MetricsPage:
    """Answers GET on any path of its address; /metrics by convention."""

    def __init__(self, meter: Meter, address: str, tls: PageTls | None = None) -> None:
        self._meter = meter
        self._address = address
        self._tls = tls
        self._server: WSGIServer | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> int:
        """The port.  Raises CannotServe."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(MeterCollector(self._meter))
        registry.register(_Everything())
        host, port = split_address(self._address)
        tls = self._tls
        try:
            self._server, self._thread = start_http_server(
                port,
                host,
                registry,
                certfile=None if tls is None else str(tls.certificate),
                keyfile=None if tls is None else str(tls.private_key),
                client_cafile=None if tls is None or tls.client_ca is None else str(tls.client_ca),
                client_auth_required=tls is not None and tls.client_ca is not None,
            )
        except OSError as error:
            raise CannotServe(f"cannot serve metrics on {self._address}: {error}") from error
        return self._server.server_port

    def close(self) -> None:
        """Blocks for up to STOP_TIMEOUT_S.  Idempotent."""
        server, self._server = self._server, None
        if server is not None and self._thread is not None:
            server.shutdown()
            server.server_close()
            self._thread.join(STOP_TIMEOUT_S)
