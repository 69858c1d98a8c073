"""grpc.health.v1: what a load balancer and an operator may rely on.

``""`` and AdminService serve as soon as the process does; InferenceService serves while some instance is READY, so
that a client is not sent to a scheduler that can only refuse.
"""

from __future__ import annotations

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio

from sage.controlplane.v1 import admin_pb2, executor_pb2, inference_pb2
from sage_common.clock import Clock
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.scheduler import Scheduler

INFERENCE = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"].full_name
EXECUTOR = executor_pb2.DESCRIPTOR.services_by_name["ExecutorService"].full_name
ADMIN = admin_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name

PREFILL_DECODE = "sage.controlplane.v1.PrefillDecode"
"""No service of the contract: NOT_SERVING while requests should be split and none can be."""

CHECK_S = 0.2


class HealthReporter:
    def __init__(self, scheduler: Scheduler, clock: Clock) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self.servicer = health_aio.HealthServicer()

    async def run(self) -> None:
        for name in ("", EXECUTOR, ADMIN):
            await self._set(name, serving=True)
        while True:
            ready = any(i.state is InstanceState.READY for i in self._scheduler.instances())
            await self._set(INFERENCE, serving=ready)
            await self._set(PREFILL_DECODE, serving=self._splits())
            await self._clock.sleep(CHECK_S)

    def _splits(self) -> bool:
        return self._scheduler.pd_settings.enabled and not self._scheduler.pd_conditions()

    async def leave(self) -> None:
        """NOT_SERVING for all, for good: the process is about to stop."""
        await self.servicer.enter_graceful_shutdown()

    async def _set(self, name: str, *, serving: bool) -> None:
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        await self.servicer.set(name, status)
