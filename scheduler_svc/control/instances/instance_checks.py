"""Checks of instances for what no event reports: silent executors, stalled engines, instances that are gone."""

from __future__ import annotations

import logging

from sage_common.clock import Clock
from scheduler_svc.control.attempts.attempt_table import AttemptTable
from scheduler_svc.control.attempts.handoffs import Handoffs
from scheduler_svc.control.instances.instance_orders import InstanceOrders
from scheduler_svc.control.instances.readiness import Readiness
from scheduler_svc.control.instances.session import Session
from scheduler_svc.control.instances.session_settings import SessionSettings
from scheduler_svc.control.instances.session_table import SessionTable
from scheduler_svc.control.instances.sessions import Sessions
from scheduler_svc.control.sleep.wakes import Wakes
from scheduler_svc.control.timing.loop_lag import LoopLag
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
        sessions: Sessions,
        orders: InstanceOrders,
        attempts: AttemptTable,
        handoffs: Handoffs,
        loop_lag: LoopLag,
        wakeup: Wakeup,
        settings: SessionSettings,
    ) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._table = table
        self._readiness = readiness
        self._sessions = sessions
        self._wakes = Wakes(scheduler, readiness.sleeps, may_be_woken=self._may_be_woken, wake=orders.wake)
        self._attempts = attempts
        self._handoffs = handoffs
        self._loop_lag = loop_lag
        self._wakeup = wakeup
        self._settings = settings

    def check(self) -> None:
        """Run every check once."""
        self._check_leases()
        self._check_progress()
        self._wakes.check()
        self._check_instances()

    def _check_leases(self) -> None:
        """Make an instance SUSPECT after half a lease of silence, and LOST after ``lease_s``."""
        now = self._clock.now()
        for session in self._table:
            # Silence counts from when a message was read, less the time by which this process read late.
            silence = now - session.last_heard_at - (self._loop_lag.lost_s - session.lag_then_s)
            if silence > self._settings.lease_s:
                self._sessions.lose(session, f"silent for {silence:.1f} s")
            elif silence > self._settings.lease_s / 2 and session.instance.state is InstanceState.READY:
                self._readiness.move(session.instance, InstanceState.SUSPECT, f"silent for {silence:.1f} s")
            elif self._without_output(session, now):
                self._sessions.lose(session, "its output stream did not come up")

    def _without_output(self, session: Session, now: float) -> bool:
        """Return whether a session that took over attempts has been without their output for longer than a lease."""
        return (
            not session.outputs_up
            and session.grace is None
            and now - session.registered_at > self._settings.lease_s
            and bool(self._attempts.on_instance(session.instance_id))
        )

    def _check_progress(self) -> None:
        """Fence the attempts on instances that stall, and give work again to instances that recovered."""
        for verdict in self._scheduler.check_health(self._clock.now()):
            log.warning("instance %s is %s: %s", verdict.instance_id, verdict.state.value, verdict.reason)
            if verdict.state is InstanceState.STALLED:
                self._attempts.instance_stalled(verdict.instance_id, verdict.reason)
                self._handoffs.instance_stalled(verdict.instance_id, verdict.reason)
            elif (recovered := self._table.find(verdict.instance_id)) is not None:
                self._readiness.hold_back(recovered)
                self._readiness.finish_drain(verdict.instance_id)
            self._wakeup.notify()

    def _may_be_woken(self, instance_id: str) -> bool:
        return instance_id in self._table and not self._readiness.drained(instance_id)

    def _check_instances(self) -> None:
        """Finish drains whose last reservation ended without an event; forget what is gone for ``forget_after_s``."""
        now = self._clock.now()
        for instance in self._scheduler.instances():
            instance_id = instance.instance_id
            self._readiness.finish_drain(instance_id)
            gone = instance_id not in self._table
            if gone and now - instance.state_since > self._settings.forget_after_s:
                self._readiness.forget(instance_id)
