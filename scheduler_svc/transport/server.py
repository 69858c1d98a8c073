"""The gRPC server: services, health, reflection, listening address and TLS."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from sage.controlplane.v1 import admin_pb2_grpc, executor_pb2_grpc, inference_pb2_grpc
from sage_common.tls import ServerTls, UnreadableFile, read_pem
from sage_wire.protocol import MAX_MESSAGE_BYTES
from scheduler_svc.transport import health
from scheduler_svc.transport.admin_servicer import AdminServicer
from scheduler_svc.transport.error_interceptor import ErrorInterceptor
from scheduler_svc.transport.executor_servicer import ExecutorServicer
from scheduler_svc.transport.inference_servicer import InferenceServicer

OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),  # a second scheduler on the same port is a mistake, not a cluster
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),  # clients may ping this often on a quiet stream
    ("grpc.http2.max_pings_without_data", 0),
]


class ListenError(Exception):
    """The server cannot listen as configured; the message is one sentence for the operator."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Services:
    """The servicers of every gRPC service that the scheduler offers."""

    inference: InferenceServicer
    executor: ExecutorServicer
    admin: AdminServicer
    health: health.HealthReporter


def build_server(services: Services) -> grpc.aio.Server:
    """Make the server with all services, health and reflection; it does not listen yet."""
    server = grpc.aio.server(interceptors=[ErrorInterceptor()], options=OPTIONS)
    inference_pb2_grpc.add_InferenceServiceServicer_to_server(services.inference, server)
    executor_pb2_grpc.add_ExecutorServiceServicer_to_server(services.executor, server)
    admin_pb2_grpc.add_AdminServiceServicer_to_server(services.admin, server)
    health_pb2_grpc.add_HealthServicer_to_server(services.health.servicer, server)
    names = (health.INFERENCE, health.EXECUTOR, health.ADMIN, "grpc.health.v1.Health")
    reflection.enable_server_reflection((*names, reflection.SERVICE_NAME), server)
    return server


def listen(server: grpc.aio.Server, address: str, tls: ServerTls | None) -> int:
    """Bind ``address`` and return the port.

    Raises:
        ListenError: the address cannot be bound, or a TLS file cannot be read.
    """
    try:
        if tls is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, _credentials(tls))
    except UnreadableFile as error:
        raise ListenError(f"tls: {error}") from error
    except (RuntimeError, OSError) as error:
        raise ListenError(f"listen: cannot bind {address}: {error}") from error


def _credentials(tls: ServerTls) -> grpc.ServerCredentials:
    pair = (read_pem(tls.private_key), read_pem(tls.certificate))
    if tls.client_ca is None:
        return grpc.ssl_server_credentials([pair])
    return grpc.ssl_server_credentials([pair], read_pem(tls.client_ca), require_client_auth=True)
