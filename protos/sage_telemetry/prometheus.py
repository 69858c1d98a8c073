"""The page that Prometheus scrapes: our instruments, and whatever else in the process registered itself with
prometheus_client (vLLM's own metrics, the process's CPU time and memory).

Served by threads of its own: rendering a large page takes longer than a token may wait.  One accepts, and never reads:
a connection's TLS handshake, its request and its answer are its own thread's, all within ``REQUEST_TIMEOUT_S``.
"""

from __future__ import annotations

import logging
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import accumulate
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import REGISTRY, CollectorRegistry, make_wsgi_app
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from sage_common.addresses import split_host_port
from sage_common.tls import ServerTls
from sage_telemetry.instrument import Kind
from sage_telemetry.meter import Meter, Reading

log = logging.getLogger(__name__)

PATH = "/metrics"
STOP_TIMEOUT_S = 2.0
REQUEST_TIMEOUT_S = 10.0  # of a connection, from its handshake to the last byte of the answer
CONNECTIONS_LIMIT = 16  # a thread each; one more is closed at once
LOOK_EVERY_S = 0.1  # at whether the service ends, and at who is over time


class CannotServe(Exception):
    """The metrics address is not to be had; one sentence."""


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
    """Serves GET /metrics, in plain text or compressed, as the scraper asks."""

    def __init__(self, meter: Meter, address: str, tls: ServerTls | None = None) -> None:
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
        host, port = split_host_port(self._address)
        try:
            server = make_server(host, port, _only_metrics(make_wsgi_app(registry)), _server_for(host), _Handler)
            if self._tls is not None:
                server.socket = _context(self._tls).wrap_socket(
                    server.socket,
                    server_side=True,
                    do_handshake_on_connect=False,  # or whoever says nothing holds up the thread that accepts
                )
        except OSError as error:
            raise CannotServe(f"cannot serve metrics on {self._address}: {error}") from error
        self._server = server
        self._thread = threading.Thread(
            target=server.serve_forever, args=(LOOK_EVERY_S,), name="metrics-page", daemon=True
        )
        self._thread.start()
        return server.server_port

    def close(self) -> None:
        """Blocks for up to STOP_TIMEOUT_S.  Idempotent."""
        server, self._server = self._server, None
        if server is not None and self._thread is not None:
            server.shutdown()  # it looks every LOOK_EVERY_S
            server.server_close()
            self._thread.join(STOP_TIMEOUT_S)


class _Server(ThreadingMixIn, WSGIServer):
    """A thread per connection, at most CONNECTIONS_LIMIT; each ends in time whatever the scraper does."""

    daemon_threads = True  # a scraper that does not read holds up nothing
    block_on_close = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._open: dict[socket.socket, float] = {}  # until when each may take
        self._open_lock = threading.Lock()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._open_lock:
            full = len(self._open) >= CONNECTIONS_LIMIT
            if not full:
                self._open[request] = time.monotonic() + REQUEST_TIMEOUT_S
        if full:
            log.debug("%s is turned away: %d connections are open", client_address, CONNECTIONS_LIMIT)
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def service_actions(self) -> None:
        """A timeout of the socket bounds one read; who sends a byte now and then is ended here."""
        now = time.monotonic()
        with self._open_lock:
            late = [connection for connection, until in self._open.items() if until <= now]
            for connection in late:
                _cut(connection)

    def shutdown_request(self, request: Any) -> None:
        with self._open_lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, OSError):  # it left, was too slow, or does not speak TLS
            log.debug("%s: %s", client_address, error)
        else:
            log.error("%s cannot be answered", client_address, exc_info=error)


def _cut(connection: socket.socket) -> None:
    """Its thread then finds the end of what it reads."""
    with suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)  # TLS's own would take the session from under a reader


class _Server6(_Server):
    address_family = socket.AF_INET6


def _server_for(host: str) -> type[_Server]:
    return _Server6 if ":" in host else _Server


class _Handler(WSGIRequestHandler):
    timeout = REQUEST_TIMEOUT_S

    def log_message(self, format: str, *args: Any) -> None:
        """A line per scrape would say nothing."""


def _only_metrics(page: Any) -> Any:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        if environ.get("PATH_INFO", "").rstrip("/") != PATH:
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [f"see {PATH}\n".encode()]
        return page(environ, start_response)

    return app


def _context(tls: ServerTls) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tls.certificate, tls.private_key)
    if tls.client_ca is not None:
        context.load_verify_locations(tls.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
