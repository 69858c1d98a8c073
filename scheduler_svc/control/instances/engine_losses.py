"""What happens when an engine is gone, alone or with its executor."""

from __future__ import annotations

import logging

from sage_common.clock import Clock
from scheduler_svc.control.instances.fleet_observer import FleetObserver
from scheduler_svc.control.instances.instance_work import InstanceWork
from scheduler_svc.control.instances.readiness import Readiness
from scheduler_svc.control.timing.wakeup import Wakeup
from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.scheduler import Scheduler

log = logging.getLogger(__name__)


class EngineLosses:
    """Ends the attempts and frees the reservations of engines that are gone; the requests go on elsewhere."""

    def __init__(
        self,
        scheduler: Scheduler,
        clock: Clock,
        readiness: Readiness,
        work: InstanceWork,
        observer: FleetObserver,
        wakeup: Wakeup,
    ) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._readiness = readiness
        self._work = work
        self._observer = observer
        self._wakeup = wakeup

    def executor_lost(self, instance: Instance, reason: str) -> None:
        """Make the instance LOST, or leave it FAILED, because its executor's session is over."""
        log.warning("instance %s is gone: %s", instance.instance_id, reason)
        if instance.state is not InstanceState.FAILED:
            self._readiness.move(instance, InstanceState.LOST, reason)
        self._free(instance, instance.state_reason, engine_died=False)

    def engine_failed(self, instance: Instance, reason: str) -> None:
        """Make the instance FAILED; its executor's session stays."""
        self._readiness.move(instance, InstanceState.FAILED, reason)
        self._free(instance, reason, engine_died=True)

    def _free(self, instance: Instance, reason: str, *, engine_died: bool) -> None:
        self._work.lost(instance.instance_id, reason, engine_died=engine_died)
        self._scheduler.lose(instance.instance_id, reason, self._clock.now())
        self._observer.engine_gone(instance, self._clock.now())
        self._wakeup.notify()
