"""Checks of instances for what no event reports: silent executors, stalled engines, instances that are gone."""

from __future__ import annotations

import logging

from sage_common.clock import Clock
from scheduler_svc.control.instances.instance_list import InstanceList
from scheduler_svc.control.instances.instance_work import InstanceWork
from scheduler_svc.control.instances.readiness import Readiness
from scheduler_svc.control.instances.session_table import SessionTable
from scheduler_svc.control.instances.sessions import Sessions
from scheduler_svc.control.sleep.wakes import Wakes
from scheduler_svc.control.timing.wakeup import Wakeup
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.scheduler import Scheduler

log = logging.getLogger(__name__)


class InstanceChecks:
    """Runs when the watchdog says."""

    def __init__(
        self,
        scheduler: Scheduler,
        clock: Clock,
        table: SessionTable,
        readiness: Readiness,
        work: InstanceWork,
        sessions: Sessions,
        wakes: Wakes,
        instances: InstanceList,
        wakeup: Wakeup,
    ) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._table = table
        self._readiness = readiness
        self._work = work
        self._sessions = sessions
        self._wakes = wakes
        self._instances = instances
        self._wakeup = wakeup

    def check(self) -> None:
        """Run every check once."""
        self._sessions.check()
        self._check_progress()
        self._wakes.check()
        self._instances.check()

    def _check_progress(self) -> None:
        """Fence the attempts on instances that stall, and give work again to instances that recovered."""
        for verdict in self._scheduler.check_health(self._clock.now()):
            log.warning("instance %s is %s: %s", verdict.instance_id, verdict.state.value, verdict.reason)
            if verdict.state is InstanceState.STALLED:
                self._work.stalled(verdict.instance_id, verdict.reason)
            elif (recovered := self._table.find(verdict.instance_id)) is not None:
                self._readiness.hold_back(recovered)
                self._readiness.finish_drain(verdict.instance_id)
            self._wakeup.notify()
