"""grpc.health.v1 as both services answer it.

The servicer of ``grpc_health`` writes to a watcher while it holds the lock that a change of status needs: one client
that takes no message freezes all statuses, and the end of the process with them.  Here nothing waits for a client.
"""

from __future__ import annotations

import asyncio
from typing import Any, TypeAlias

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Response: TypeAlias = health_pb2.HealthCheckResponse

WATCHERS_LIMIT = 1_024
"""Clients that may watch at the same time: whoever reaches the port may, without saying who it is."""


class HealthServicer(health_pb2_grpc.HealthServicer):
    """Answers health checks from statuses by the name of a service; the empty name is the whole process."""

    def __init__(self, *, watchers_limit: int = WATCHERS_LIMIT) -> None:
        self._serving: dict[str, bool] = {}
        self._changed = asyncio.Event()  # set at the next change, and then replaced
        self._watchers = 0
        self._watchers_limit = watchers_limit
        self._leaving = False

    def set(self, service: str, *, serving: bool) -> None:
        """Set the status of a service, unless the process is leaving."""
        serving = serving and not self._leaving
        if self._serving.get(service) is not serving:
            self._serving[service] = serving
            self._changed.set()
            self._changed = asyncio.Event()

    def leave(self) -> None:
        """Set every service to NOT_SERVING for good: the process is about to stop."""
        self._leaving = True
        for service in list(self._serving):
            self.set(service, serving=False)

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Context) -> Response:
        """Return the status of a service; NOT_FOUND for one that is not known."""
        if request.service not in self._serving:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no service of this name has a status")
        return Response(status=self._status(request.service))

    async def List(self, request: Any, context: Context) -> Any:
        """Return the statuses of all services.  Older ``grpc_health`` packages have no such call and never ask."""
        response: Any = health_pb2.HealthListResponse  # type: ignore[attr-defined]  # the stubs have none
        return response(statuses={service: Response(status=self._status(service)) for service in self._serving})

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Context) -> None:
        """Stream the status of a service at every change; RESOURCE_EXHAUSTED while too many watch."""
        if self._watchers >= self._watchers_limit:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{self._watchers_limit} clients watch already")
        self._watchers += 1
        try:
            written: int | None = None
            while True:
                changed, status = self._changed, self._status(request.service)
                if status != written:
                    await context.write(Response(status=status))
                    written = status
                await changed.wait()
        finally:
            self._watchers -= 1

    def _status(self, service: str) -> int:
        serving = self._serving.get(service)
        if serving is None:
            return Response.SERVICE_UNKNOWN
        return Response.SERVING if serving else Response.NOT_SERVING
