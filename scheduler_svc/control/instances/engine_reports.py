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
from scheduler_svc.control.instances.fleet_observer import FleetObserver
from scheduler_svc.control.instances.instance_orders import InstanceOrders
from scheduler_svc.control.instances.readiness import Readiness
from scheduler_svc.control.instances.session import Session
from scheduler_svc.control.instances.session_settings import SessionSettings
from scheduler_svc.control.instances.session_table import SessionTable
from scheduler_svc.control.instances.sessions import Sessions
from scheduler_svc.control.requests.model_directory import ModelDirectory
from scheduler_svc.control.requests.tokenizers import Tokenizers
from scheduler_svc.control.sleep.instance_sleep import SleepReport
from scheduler_svc.control.timing.wakeup import Wakeup
from scheduler_svc.domain.engine_facts import EngineFacts
from scheduler_svc.domain.instance_state import GONE, STARTING, InstanceState
from scheduler_svc.domain.load_report import LoadReport
from scheduler_svc.domain.prefixes.cache_report import CacheReport
from scheduler_svc.domain.scheduler import Scheduler

log = logging.getLogger(__name__)

ACKNOWLEDGED_SHARE = 0.2
"""Share of the lease after which a heartbeat is acknowledged again: an executor gives up after a whole one without."""


class EngineReports:
    """Takes the reports of sessions.  What a replaced session says does not count."""

    def __init__(
        self,
        scheduler: Scheduler,
        clock: Clock,
        table: SessionTable,
        readiness: Readiness,
        sessions: Sessions,
        orders: InstanceOrders,
        adoption: Adoption,
        adapters: Adapters,
        tokenizers: Tokenizers,
        models: ModelDirectory,
        wakeup: Wakeup,
        settings: SessionSettings,
        observer: FleetObserver,
    ) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._table = table
        self._readiness = readiness
        self._sessions = sessions
        self._orders = orders
        self._adoption = adoption
        self._adapters = adapters
        self._tokenizers = tokenizers
        self._models = models
        self._wakeup = wakeup
        self._settings = settings
        self._observer = observer
        models.on_missing_tokenizer(self._ask_for_tokenizer)

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
        if not self._table.current(session):
            return
        instance = session.instance
        self._sessions.renew_lease(session)
        if state is InstanceState.READY and facts is not None:
            self._engine_ready(session, facts)
        elif state is InstanceState.FAILED:
            self._sessions.engine_failed(instance, message)
            instance.progress = progress
            self._adoption.engine_starts(session.instance_id)
        elif instance.state in STARTING or instance.state in GONE:
            self._readiness.move(instance, state, message)
            instance.progress = progress
            self._adoption.engine_starts(session.instance_id)
        self._wakeup.notify()

    def _engine_ready(self, session: Session, facts: EngineFacts) -> None:
        instance = session.instance
        if not self._tokenizers.has(facts.tokenizer_hash):
            self._models.asked(facts.tokenizer_hash)
            session.link.want_tokenizer(facts.tokenizer_hash)
        self._scheduler.engine_ready(session.instance_id, facts, self._clock.now())
        self._adapters.engine_ready(session.instance_id)
        drain_reason = self._readiness.drains.reason(session)
        if instance.state is InstanceState.READY and drain_reason is not None:
            self._readiness.move(instance, InstanceState.DRAINING, drain_reason)
            self._readiness.finish_drain(session.instance_id)
        self._readiness.hold_back(session)
        self._models.ready(session.instance.spec.model)
        self._adoption.engine_ready(session.instance_id, session.link)
        log.info("instance %s is ready", session.instance_id)

    def heartbeat(self, session: Session, load: LoadReport) -> None:
        """Take a heartbeat, which renews the lease."""
        if not self._table.current(session):
            return
        self._sessions.renew_lease(session)
        now = self._clock.now()
        self._scheduler.report(session.instance_id, load, now)
        self._observer.heartbeat(session.instance, load, now)
        if now - session.acknowledged_at >= self._settings.silence_s * ACKNOWLEDGED_SHARE:
            session.acknowledged_at = now
            session.link.acknowledge_heartbeat(load.number)
        cooling_down = self._readiness.cool_downs.reason(session.instance_id) is not None
        if session.instance.state is InstanceState.SUSPECT and session.up and not cooling_down:
            self._readiness.recover(session, "heartbeats are back")
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

    def _ask_for_tokenizer(self, model: str, tokenizer_hash: str) -> None:
        """Ask a live instance of the model for its tokenizer files, which were dropped to make room for others."""
        for instance in self._scheduler.instances(model):
            session = self._table.find(instance.instance_id)
            facts = instance.facts
            if session is not None and session.up and facts is not None and facts.tokenizer_hash == tokenizer_hash:
                session.link.want_tokenizer(tokenizer_hash)
                return
