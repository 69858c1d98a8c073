"""What executors report of their engines: state, load, prefix cache, adapters, sleep, what they hold."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from sage_common.clock import Clock
from scheduler_svc.control.adapters.adapters import Adapters
from scheduler_svc.control.adapters.instance_adapters import AdapterReport
from scheduler_svc.control.adoption.adoption import Adoption
from scheduler_svc.control.adoption.held_request import HeldRequest
from scheduler_svc.control.instances.engine_states import EngineStates
from scheduler_svc.control.instances.heartbeats import Heartbeats
from scheduler_svc.control.instances.instance_orders import InstanceOrders
from scheduler_svc.control.instances.readiness import Readiness
from scheduler_svc.control.instances.session import Session
from scheduler_svc.control.instances.session_table import SessionTable
from scheduler_svc.control.sleep.instance_sleep import SleepReport
from scheduler_svc.control.timing.wakeup import Wakeup
from scheduler_svc.domain.engine_facts import EngineFacts
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.load_report import LoadReport
from scheduler_svc.domain.prefixes.cache_report import CacheReport
from scheduler_svc.domain.scheduler import Scheduler

log = logging.getLogger(__name__)


class EngineReports:
    """Takes the reports of sessions.  What a replaced session says does not count."""

    def __init__(
        self,
        scheduler: Scheduler,
        clock: Clock,
        table: SessionTable,
        readiness: Readiness,
        states: EngineStates,
        heartbeats: Heartbeats,
        orders: InstanceOrders,
        adoption: Adoption,
        adapters: Adapters,
        wakeup: Wakeup,
    ) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._table = table
        self._readiness = readiness
        self._states = states
        self._heartbeats = heartbeats
        self._orders = orders
        self._adoption = adoption
        self._adapters = adapters
        self._wakeup = wakeup

    def now(self) -> float:
        """Return the time, in seconds on the control clock."""
        return self._clock.now()

    def engine_status(
        self,
        session: Session,
        state: InstanceState,
        progress: float | None,
        message: str,
        facts: EngineFacts | None,
    ) -> None:
        """Take the state of an executor's engine.

        ``progress`` of the engine's start is in [0, 1]; None if unknown.  ``facts`` come with READY.
        """
        if self._table.current(session):
            self._states.take(session, state, progress, message, facts)
            self._wakeup.notify()

    def heartbeat(self, session: Session, load: LoadReport) -> None:
        """Take a heartbeat, which renews the lease."""
        if self._table.current(session):
            self._heartbeats.take(session, load)
            self._wakeup.notify()

    def held_assign(self, session: Session, name: tuple[int, int], held: HeldRequest | None) -> None:
        """Take an executor's answer about an attempt that it holds; see ``Adoption.answered``."""
        if self._table.current(session):
            self._adoption.answered(session.instance_id, name, held, session.link)
            self._wakeup.notify()

    def adapter_states(self, session: Session, number: int, reports: Sequence[AdapterReport]) -> None:
        """Take what an executor says of all its run-time adapters; ``number``: of the latest order that it knew."""
        if self._table.current(session):
            self._adapters.reported(session.instance_id, number, reports)

    def sleep_report(self, session: Session, report: SleepReport) -> None:
        """Take what an executor says of its engine's sleep."""
        if self._table.current(session):
            drained = self._readiness.drained(session.instance_id)
            self._readiness.sleeps.reported(session.instance, report, drained=drained)
            self._wakeup.notify()

    def cache_report(self, session: Session, number: int, report: CacheReport) -> None:
        """Take a report of an engine's prefix cache; after a gap in the numbers, nothing before it counts."""
        if not self._table.current(session):
            return
        if number != session.cache_reports + 1 and not report.cleared:
            log.warning(
                "instance %s: prefix cache report %d came after %d: what was reported before does not count",
                session.instance_id,
                number,
                session.cache_reports,
            )
            report = replace(report, cleared=True)
        session.cache_reports = number
        self._scheduler.report_cache(session.instance_id, report)

    def wants_drain(self, session: Session, reason: str) -> None:
        """Drain the instance because its executor asks for it, until its engine ends."""
        self._orders.drain(session.instance_id, reason, by_operator=False)

    def drained(self, session: Session) -> None:
        """Finish the drain of an instance whose executor says that nothing runs there any more."""
        self._readiness.finish_drain(session.instance_id)
