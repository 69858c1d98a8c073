"""Serves the page that Prometheus scrapes: the catalogue's instruments, and everything else in the process that is
registered with prometheus_client (vLLM's own metrics, the process's CPU time and memory).

Threads serve it, because rendering a large page takes longer than a token may wait.  One thread accepts and never
reads; each connection has its own for TLS handshake, request and answer, all within ``REQUEST_TIMEOUT_S``.
"""

from __future__ import annotations

import logging
import socket
import ssl
import sys
import threading
import time
from contextlib import suppress
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import REGISTRY, CollectorRegistry, make_wsgi_app

from sage_common.addresses import split_host_port
from sage_common.file_watch import CHECK_S, FileWatch
from sage_common.tls import ServerTls
from sage_telemetry.meter import Meter

log = logging.getLogger(__name__)

PATH = "/metrics"
"""The page's path; every other one is answered with 404."""
STOP_TIMEOUT_S = 2.0
"""How long ``MetricsPage.close`` waits for its thread."""
REQUEST_TIMEOUT_S = 10.0
"""How long a connection may take, from its handshake to the last byte of the answer."""
CONNECTIONS_LIMIT = 16
"""Connections at once, a thread each; one more is closed at once."""
POLL_INTERVAL_S = 0.1
"""How often the accepting thread checks whether to stop and which connections are out of time."""


class CannotServe(Exception):
    """The metrics address cannot be bound; the message is one sentence."""


class MetricsPage:
    """Serves GET /metrics, in plain text or compressed, as the scraper asks."""

    def __init__(self, meter: Meter, address: str, tls: ServerTls | None = None) -> None:
        """Prepare the page of ``meter`` at ``address``, a host:port; port 0 takes a free one."""
        self._meter = meter
        self._address = address
        self._tls = tls
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> int:
        """Serve the page and return its port.  Raises CannotServe."""
        registry = CollectorRegistry()
        registry.register(self._meter)
        registry.register(REGISTRY)
        host, port = split_host_port(self._address)
        try:
            tls = _PageTls(self._tls) if self._tls is not None else None
            server = make_server(host, port, _only_metrics(make_wsgi_app(registry)), _server_for(host), _Handler)
            server.tls = tls
        except OSError as error:
            raise CannotServe(f"telemetry.metrics_listen: cannot serve metrics on {self._address}: {error}") from error
        self._server = server
        self._thread = threading.Thread(
            target=server.serve_forever, args=(POLL_INTERVAL_S,), name="metrics-page", daemon=True
        )
        self._thread.start()
        return server.server_port

    def close(self) -> None:
        """Stop serving.  Blocks for at most STOP_TIMEOUT_S.  Idempotent."""
        server, self._server = self._server, None
        if server is not None and self._thread is not None:
            server.shutdown()  # takes up to POLL_INTERVAL_S
            server.server_close()
            self._thread.join(STOP_TIMEOUT_S)


class _PageTls:
    """The page's certificate.  It is read again when its files change; connections that come later use the new one."""

    def __init__(self, tls: ServerTls) -> None:
        self._tls = tls
        self._watch = FileWatch(path for path in (tls.certificate, tls.private_key, tls.client_ca) if path is not None)
        self._context = _context(tls)
        self._checked_at = time.monotonic()

    def wrapped(self, connection: socket.socket) -> ssl.SSLSocket:
        """Return the connection with TLS.  The handshake comes with the first read, in the connection's own thread."""
        return self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)

    def check(self) -> None:
        """Read the files again if they changed; looks at them every CHECK_S.  Bad ones leave the old ones in use."""
        if time.monotonic() - self._checked_at < CHECK_S:
            return
        self._checked_at = time.monotonic()
        if self._watch.changed():
            try:
                self._context = _context(self._tls)
            except OSError as error:
                log.error("the metrics page goes on with the certificate read before: %s", error)


class _Server(ThreadingMixIn, WSGIServer):
    """A thread per connection, at most CONNECTIONS_LIMIT; each ends within REQUEST_TIMEOUT_S."""

    daemon_threads = True  # the process does not wait for a scraper that does not read
    block_on_close = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._open: dict[socket.socket, float] = {}  # deadline of each connection, monotonic
        self._open_lock = threading.Lock()
        self.tls: _PageTls | None = None

    def get_request(self) -> tuple[Any, Any]:
        connection, address = super().get_request()
        return (connection if self.tls is None else self.tls.wrapped(connection)), address

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._open_lock:
            full = len(self._open) >= CONNECTIONS_LIMIT
            if not full:
                self._open[request] = time.monotonic() + REQUEST_TIMEOUT_S
        if full:
            log.debug("connection of %s closed: %d are open", client_address, CONNECTIONS_LIMIT)
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def service_actions(self) -> None:
        """Cut connections that are out of time; the socket's own timeout bounds one read only."""
        if self.tls is not None:
            self.tls.check()
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
        if isinstance(error, OSError):  # the scraper left, was too slow, or does not speak TLS
            log.debug("%s: %s", client_address, error)
        else:
            log.error("cannot answer %s", client_address, exc_info=error)


def _cut(connection: socket.socket) -> None:
    """Shut ``connection`` down; the thread that reads it then reaches its end."""
    with suppress(OSError):
        socket.socket.shutdown(
            connection, socket.SHUT_RDWR
        )  # the TLS socket's own shutdown would break the session of the thread that reads


class _Server6(_Server):
    address_family = socket.AF_INET6


def _server_for(host: str) -> type[_Server]:
    return _Server6 if ":" in host else _Server


class _Handler(WSGIRequestHandler):
    timeout = REQUEST_TIMEOUT_S

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: a line per scrape is of no use."""


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
