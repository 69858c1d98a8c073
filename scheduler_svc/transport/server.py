"""The gRPC servers: services, health, reflection, interceptors, listening addresses and TLS."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import grpc
from grpc_health.v1 import health_pb2_grpc

from externalscaler import externalscaler_pb2_grpc
from sage.controlplane.v1 import admin_pb2_grpc, executor_pb2_grpc, inference_pb2_grpc
from sage_common.tls import ReloadedTls
from sage_wire.health import HealthServicer
from sage_wire.keepalive import keepalive
from sage_wire.listener_credentials import listener_credentials
from sage_wire.protocol import MAX_MESSAGE_BYTES
from scheduler_svc.transport import health
from scheduler_svc.transport.error_interceptor import ErrorInterceptor
from scheduler_svc.transport.errors import OnEnd
from scheduler_svc.transport.reflection import serve_reflection

SCALER = "externalscaler.ExternalScaler"
"""KEDA's service, which is reached wherever AdminService is."""

OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),  # a second scheduler on the same port is a mistake, not a cluster
    *keepalive(10.0, 5.0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),  # clients may ping this often on a quiet stream
    ("grpc.max_connection_idle_ms", 300_000),  # a connection without a call ends; clients open one at their next call
    ("grpc.server_handshake_timeout_ms", 10_000),  # so does one that does not finish its TLS handshake
]


BIND_TRIES = 100
BIND_PAUSE_S = 0.05
"""How often, and how long apart, an address is tried again that this process has just stopped listening at."""


class ListenError(Exception):
    """The server cannot listen as configured; the message is one sentence for the operator."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Services:
    """The servicers of every gRPC service that the scheduler offers."""

    inference: inference_pb2_grpc.InferenceServiceServicer
    executor: executor_pb2_grpc.ExecutorServiceServicer
    admin: admin_pb2_grpc.AdminServiceServicer
    scaler: externalscaler_pb2_grpc.ExternalScalerServicer
    health: HealthServicer


@dataclass(frozen=True, kw_only=True, slots=True)
class Listener:
    """An address, and the services that are reached there."""

    key: str  # the setting that names the address
    address: str
    services: frozenset[str]  # of health.INFERENCE, health.EXECUTOR, health.ADMIN
    clients_need_certificates: bool = False  # with TLS


def listeners(addresses: Mapping[str, str], demanding: Collection[str]) -> list[Listener]:
    """Return the listeners of the configured addresses, by key; ``listen`` serves what no other one does.

    ``demanding``: keys of those that take only clients with a certificate.
    """
    own = {"executor_listen": health.EXECUTOR, "admin_listen": health.ADMIN}
    apart = {key: service for key, service in own.items() if key in addresses}
    shared = {health.INFERENCE, health.EXECUTOR, health.ADMIN} - set(apart.values())
    served = {"listen": frozenset(shared)} | {key: frozenset({service}) for key, service in apart.items()}
    return [
        Listener(key=key, address=addresses[key], services=services, clients_need_certificates=key in demanding)
        for key, services in served.items()
    ]


class Servers:
    """One gRPC server per listener: in gRPC, all services of a server are reached at all its addresses."""

    def __init__(
        self,
        services: Services,
        guard: Callable[[Listener], grpc.aio.ServerInterceptor],
        *,
        reflection: bool,
        on_end: OnEnd = lambda method, reason: None,
    ) -> None:
        """Serve nothing yet.

        ``guard`` makes the interceptor that checks who calls at a listener.  ``on_end`` is told of calls that end with
        an error.
        """
        self._on_end = on_end
        self._services = services
        self._guard = guard
        self._reflection = reflection
        self._servers: list[grpc.aio.Server] = []
        self._bound: list[tuple[Listener, ReloadedTls | None]] = []  # each with the port that it has
        self.ports: dict[str, int] = {}  # by the listener's key

    def listen(self, listener: Listener, tls: ReloadedTls | None) -> None:
        """Bind a listener's address.  Raises ListenError."""
        interceptors = [
            ErrorInterceptor(self._on_end),
            self._guard(listener),
        ]  # the first one is outermost: it sees all errors
        server = build_server(self._services, listener.services, interceptors, reflection=self._reflection)
        port = self.ports[listener.key] = listen(server, listener, tls)
        self._servers.append(server)
        self._bound.append((replace(listener, address=_at_port(listener.address, port)), tls))

    async def start(self) -> None:
        """Serve on all addresses."""
        for server in self._servers:
            await server.start()

    async def stop(self, grace: float) -> None:
        """Stop serving; running calls have ``grace`` seconds to end."""
        await asyncio.gather(*(server.stop(grace) for server in self._servers))

    async def renew(self, grace: float) -> None:
        """End all connections and serve at the same addresses again; running calls have ``grace`` seconds to end.

        Raises ListenError.
        """
        await self.stop(grace)
        bound, self._bound, self._servers = self._bound, [], []
        for listener, tls in bound:
            await self._listen_again(listener, tls)
        await self.start()

    async def _listen_again(self, listener: Listener, tls: ReloadedTls | None) -> None:
        for _ in range(BIND_TRIES - 1):
            try:
                self.listen(listener, tls)
            except ListenError:
                await asyncio.sleep(BIND_PAUSE_S)
            else:
                return
        self.listen(listener, tls)


def build_server(
    services: Services,
    served: Collection[str],
    interceptors: Sequence[grpc.aio.ServerInterceptor],
    *,
    reflection: bool,
) -> grpc.aio.Server:
    """Make a server with the services of the names in ``served``, and health; it does not listen yet."""
    server = grpc.aio.server(interceptors=interceptors, options=OPTIONS)
    if health.INFERENCE in served:
        inference_pb2_grpc.add_InferenceServiceServicer_to_server(services.inference, server)
    if health.EXECUTOR in served:
        executor_pb2_grpc.add_ExecutorServiceServicer_to_server(services.executor, server)
    names = {*served, "grpc.health.v1.Health"}
    if health.ADMIN in served:
        admin_pb2_grpc.add_AdminServiceServicer_to_server(services.admin, server)
        externalscaler_pb2_grpc.add_ExternalScalerServicer_to_server(services.scaler, server)
        names.add(SCALER)
    health_pb2_grpc.add_HealthServicer_to_server(services.health, server)
    if reflection:
        serve_reflection(server, sorted(names))
    return server


def listen(server: grpc.aio.Server, listener: Listener, tls: ReloadedTls | None) -> int:
    """Bind the listener's address and return the port.

    Raises:
        ListenError: the address cannot be bound.
    """
    try:
        if tls is None:
            return server.add_insecure_port(listener.address)
        demanding = listener.clients_need_certificates and tls.current.client_ca is not None
        credentials = listener_credentials(lambda: tls.current, clients_need_certificates=demanding)
        return server.add_secure_port(listener.address, credentials)
    except (RuntimeError, OSError) as error:
        why = "the address is in use, or not one of this machine"  # gRPC says neither
        raise ListenError(f"{listener.key}: cannot bind {listener.address}: {why}") from error


def _at_port(address: str, port: int) -> str:
    """Return an address with the port that it got, where it asked for any."""
    return f"{address.removesuffix(':0')}:{port}" if address.endswith(":0") else address
