"""One process of the gateway: the HTTP server, the catalogue of models, and the clients of its callers."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import prometheus_client
import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol
from vllm.v1.metrics.prometheus import get_prometheus_registry

from sage_common.tasks import TaskDied, WatchedTasks
from sage_gateway.asgi import Application
from sage_gateway.batches import batch_routes as batches
from sage_gateway.batches import file_routes as files
from sage_gateway.caller_clients import CallerClients
from sage_gateway.connections import Connections, bounded, most_connections
from sage_gateway.embedding_application import EmbeddingApplication
from sage_gateway.front_door import FrontDoor
from sage_gateway.known_callers import KnownCallers
from sage_gateway.media_hosts import MediaHosts
from sage_gateway.media_memory import MediaMemory
from sage_gateway.model_catalogue import ModelCatalogue
from sage_gateway.settings import GatewaySettings
from sage_gateway.vllm_server.media_fetcher import MediaFetcher
from sage_gateway.vllm_server.model_application import ApplicationBuilder, retire
from sage_gateway.worker_processes import parent_ended

log = logging.getLogger(__name__)

KEEP_ALIVE_S = 75
"""Seconds that a connection without a request stays open: longer than load balancers keep theirs (60 s)."""


class _Server(uvicorn.Server):
    """An HTTP server that leaves signals to the gateway, and says where it listens."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none: ``GatewayProcess.stop`` ends the server."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
        for each in sockets or ():
            host, port = each.getsockname()[:2]
            log.info("listening on %s:%d", host, port)


class GatewayProcess:
    """Serves HTTP on one socket until it is told to stop, or SIGTERM or SIGINT comes."""

    def __init__(self, settings: GatewaySettings, listener: socket.socket, version: str) -> None:
        """``version``: of vLLM, for /version."""
        self._settings = settings
        self._listener = listener
        self._version = version
        self._server: uvicorn.Server | None = None

    def stop(self) -> None:
        """Let running requests finish within the grace, then end."""
        if self._server is not None:
            self._server.should_exit = True

    async def run(self) -> None:
        """Serve until ``stop``.  Raises TaskDied and ConfigurationError."""
        connection = self._settings.connection
        own, clients = connection.own_client(), CallerClients(connection.client_of)
        tasks = WatchedTasks()
        with tempfile.TemporaryDirectory(prefix="sage-gateway-") as directory:
            builder = ApplicationBuilder(
                clients, Path(directory), self._settings.vllm_arguments, self._settings.model_arguments
            )
            catalogue = builder.catalogue = ModelCatalogue(
                own,
                builder.build,
                lambda model, pooling, why: EmbeddingApplication(model, clients, pooling, why),
                retire=retire,
            )
            routes: dict[str, Application] = {
                files.ROUTE: files.FileRoutes(clients),
                batches.ROUTE: batches.BatchRoutes(clients),
            }
            hosts = self._settings.media_hosts
            fetcher = MediaFetcher(MediaHosts(hosts)) if hosts else None
            memory = MediaMemory(self._settings.media_bytes)
            check = KnownCallers(clients).check
            door = FrontDoor(catalogue, _metrics, self._version, check, routes, fetcher, memory)
            connections = Connections(most_connections())
            server = self._server = _Server(self._config(door, connections))
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(connections.loop_failed)
            for signal_number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(signal_number, self.stop)
            try:
                tasks.start(catalogue.follow(), name="follow-models")
                tasks.start(self._stop_with_parent(), name="follow-parent")
                await _until_either(server, tasks, self._listener)
            finally:
                await tasks.stop()
                if fetcher is not None:
                    await fetcher.close()
                await clients.close()
                await own.close()

    async def _stop_with_parent(self) -> None:
        """Stop once the process that started this worker is gone: nobody else would, and the port stays taken."""
        await parent_ended()
        log.error("the process that started this worker has ended; it stops, too")
        self.stop()
        await asyncio.Event().wait()

    def _config(self, door: FrontDoor, connections: Connections) -> uvicorn.Config:
        settings = self._settings
        return uvicorn.Config(
            door,
            http=bounded(AutoHTTPProtocol, connections),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=max(1, round(settings.grace_s)),
            ssl_certfile=settings.tls_cert,
            ssl_keyfile=settings.tls_key,
            lifespan="off",
        )


async def _until_either(server: uvicorn.Server, tasks: WatchedTasks, listener: socket.socket) -> None:
    """Serve until the server ends, or a background task does.  Raises TaskDied."""
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="serve-http")
    failing = asyncio.create_task(tasks.failure(), name="watch-tasks")
    try:
        await asyncio.wait({serving, failing}, return_when=asyncio.FIRST_COMPLETED)
        if failing.done():
            died: TaskDied = failing.result()
            server.should_exit = True
            await serving
            raise died
        await serving
    finally:
        failing.cancel()


def _metrics() -> tuple[bytes, bytes]:
    return prometheus_client.CONTENT_TYPE_LATEST.encode(), prometheus_client.generate_latest(get_prometheus_registry())
