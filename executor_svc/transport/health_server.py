"""The executor's own gRPC server: grpc.health.v1 and reflection."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from executor_svc.transport.decode_interceptor import DecodeInterceptor
from sage_wire.health import HealthServicer

SERVICE = "sage.executor"  # service name for health checks; the empty name has the same status


class CannotListen(Exception):
    """The server cannot listen on its address; the message is one sentence."""


class HealthServer:
    """Answers health checks.

    The status is SERVING while the engine is ready, a scheduler is connected and the executor is not leaving.
    """

    def __init__(self, address: str, credentials: grpc.ServerCredentials | None) -> None:
        self._address = address
        self._credentials = credentials  # None: no TLS
        self._server = grpc.aio.server(interceptors=[DecodeInterceptor()], options=[("grpc.so_reuseport", 0)])
        self._servicer = HealthServicer()
        self.serving(False)
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, self._server)
        names = (health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    async def start(self) -> int:
        """Listen, and return the port.  Raises CannotListen."""
        try:
            if self._credentials is None:
                port = self._server.add_insecure_port(self._address)
            else:
                port = self._server.add_secure_port(self._address, self._credentials)
        except RuntimeError as error:
            raise CannotListen(
                f"cannot listen on {self._address}: the address is in use, or not one of this machine"
            ) from error
        await self._server.start()
        return port

    def serving(self, serving: bool) -> None:
        """Report whether the executor accepts attempts.  Implements ``runtime.service.HealthPort``."""
        for name in ("", SERVICE):
            self._servicer.set(name, serving=serving)

    async def stop(self) -> None:
        """Report NOT_SERVING and stop listening."""
        self._servicer.leave()
        await self._server.stop(grace=0.2)
