"""Executors' heartbeats."""

from __future__ import annotations

from sage_common.clock import Clock
from scheduler_svc.control.instances.fleet_observer import FleetObserver
from scheduler_svc.control.instances.lease import Leases
from scheduler_svc.control.instances.readiness import Readiness
from scheduler_svc.control.instances.session import Session
from scheduler_svc.control.instances.session_settings import SessionSettings
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.load_report import LoadReport
from scheduler_svc.domain.scheduler import Scheduler

ACKNOWLEDGED_SHARE = 0.2
"""Share of the lease after which a heartbeat is acknowledged again: an executor gives up after a whole one without."""


class Heartbeats:
    """Takes the load that heartbeats report, renews leases, and acknowledges some heartbeats."""

    def __init__(
        self,
        scheduler: Scheduler,
        clock: Clock,
        readiness: Readiness,
        leases: Leases,
        observer: FleetObserver,
        settings: SessionSettings,
    ) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._readiness = readiness
        self._leases = leases
        self._observer = observer
        self._settings = settings

    def take(self, session: Session, load: LoadReport) -> None:
        """Take a heartbeat of an instance's current session."""
        self._leases.renew(session.lease)
        now = self._clock.now()
        self._scheduler.report(session.instance_id, load, now)
        self._observer.heartbeat(session.instance, load, now)
        if now - session.acknowledged_at >= self._settings.silence_s * ACKNOWLEDGED_SHARE:
            session.acknowledged_at = now
            session.link.acknowledge_heartbeat(load.number)
        cooling_down = self._readiness.cool_downs.reason(session.instance_id) is not None
        if session.instance.state is InstanceState.SUSPECT and session.up and not cooling_down:
            self._readiness.recover(session, "heartbeats are back")
