"""grpc.health.v1: what load balancers and operators may rely on.

The whole server (``""``) is SERVING as soon as the process is, ExecutorService and AdminService while the scheduler
leads.  InferenceService is SERVING while some instance is READY, so that no client is sent to a scheduler that can only
refuse.
"""

from __future__ import annotations

from sage.controlplane.v1 import admin_pb2, executor_pb2, inference_pb2
from sage_common.clock import Clock
from sage_wire.health import HealthServicer
from scheduler_svc.control.journal.maintenance import JournalMaintenance
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.scheduler import Scheduler

INFERENCE = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"].full_name
EXECUTOR = executor_pb2.DESCRIPTOR.services_by_name["ExecutorService"].full_name
ADMIN = admin_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name

PREFILL_DECODE = "sage.controlplane.v1.PrefillDecode"
"""A name for health checks only: SERVING while splitting is enabled and nothing keeps it from working."""

JOURNAL = "sage.controlplane.v1.Journal"
"""A name for health checks only: SERVING while there is a journal and it can be written."""

CHECK_S = 0.2  # seconds between two updates


def standing_by(servicer: HealthServicer) -> None:
    """Let health checks find a process that lives and serves nothing, because another scheduler leads."""
    servicer.set("", serving=True)
    for name in (INFERENCE, EXECUTOR, ADMIN, PREFILL_DECODE, JOURNAL):
        servicer.set(name, serving=False)


class HealthReporter:
    """Keep the statuses of grpc.health.v1 current."""

    def __init__(
        self,
        scheduler: Scheduler,
        clock: Clock,
        journal: JournalMaintenance | None = None,
        servicer: HealthServicer | None = None,
    ) -> None:
        """``servicer``: what answers checks; None: one of its own."""
        self._scheduler = scheduler
        self._clock = clock
        self._journal = journal
        self.servicer = servicer or HealthServicer()
        for name in ("", EXECUTOR, ADMIN):
            self.servicer.set(name, serving=True)

    async def run(self) -> None:
        """Update the statuses every CHECK_S until cancelled."""
        while True:
            ready = any(i.state is InstanceState.READY for i in self._scheduler.instances())
            self.servicer.set(INFERENCE, serving=ready)
            self.servicer.set(PREFILL_DECODE, serving=self._splits())
            self.servicer.set(JOURNAL, serving=self._journal is not None and not self._journal.trouble)
            await self._clock.sleep(CHECK_S)

    def _splits(self) -> bool:
        return self._scheduler.pd_settings.enabled and not self._scheduler.pd_conditions()

    def leave(self) -> None:
        """Set every service to NOT_SERVING for good: the process is about to stop."""
        self.servicer.leave()
