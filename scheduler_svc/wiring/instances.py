"""The objects of ``control/instances``, connected to each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sage_common.clock import Clock
from scheduler_svc.control.adapters.adapters import Adapters
from scheduler_svc.control.adoption.adoption import Adoption
from scheduler_svc.control.attempts.attempt_table import AttemptTable
from scheduler_svc.control.attempts.executor_links import ExecutorLinks
from scheduler_svc.control.attempts.handoffs import Handoffs
from scheduler_svc.control.instances.attempt_outcomes import AttemptOutcomes
from scheduler_svc.control.instances.engine_reports import EngineReports
from scheduler_svc.control.instances.fleet_observer import FleetObserver
from scheduler_svc.control.instances.instance_checks import InstanceChecks
from scheduler_svc.control.instances.instance_orders import InstanceOrders
from scheduler_svc.control.instances.readiness import Readiness
from scheduler_svc.control.instances.registrar import Registrar
from scheduler_svc.control.instances.session_settings import SessionSettings
from scheduler_svc.control.instances.session_table import SessionTable
from scheduler_svc.control.instances.sessions import Sessions
from scheduler_svc.control.journal.operator_decisions import OperatorDecisions
from scheduler_svc.control.requests.kept_ends import KeptEnds
from scheduler_svc.control.requests.model_directory import ModelDirectory
from scheduler_svc.control.requests.tokenizers import Tokenizers
from scheduler_svc.control.roles.kept_roles import KeptRoles
from scheduler_svc.control.timing.loop_lag import LoopLag
from scheduler_svc.control.timing.wakeup import Wakeup
from scheduler_svc.domain.scheduler import Scheduler


@dataclass(frozen=True, kw_only=True, slots=True)
class Instances:
    """What has to do with instances and their executors' sessions."""

    table: SessionTable
    registrar: Registrar
    sessions: Sessions
    reports: EngineReports
    orders: InstanceOrders
    outcomes: AttemptOutcomes
    checks: InstanceChecks


@dataclass(frozen=True, kw_only=True, slots=True)
class InstancesBuilder:
    """What the objects of ``control/instances`` are built on."""

    scheduler: Scheduler
    clock: Clock
    attempts: AttemptTable
    handoffs: Handoffs
    links: ExecutorLinks
    tokenizers: Tokenizers
    loop_lag: LoopLag
    wakeup: Wakeup
    models: ModelDirectory
    settings: SessionSettings
    epoch: int
    observer: FleetObserver
    adoption: Adoption
    ends: KeptEnds
    decisions: OperatorDecisions
    adapters: Adapters
    roles: KeptRoles

    def build(self, seen: Callable[[Mapping[str, str]], None]) -> Instances:
        """Build them.  ``seen`` is told the models of the instances that have a session, by id, at each change."""
        table = SessionTable(seen)
        readiness = Readiness(self.scheduler, self.clock, table, self.settings, self.decisions, self.wakeup)
        sessions = self._sessions(table, readiness)
        orders = InstanceOrders(self.scheduler, table, readiness, self.attempts, self.ends, self.wakeup)
        return Instances(
            table=table,
            registrar=self._registrar(table, readiness, sessions),
            sessions=sessions,
            reports=self._reports(table, readiness, sessions, orders),
            orders=orders,
            outcomes=AttemptOutcomes(table, readiness, sessions),
            checks=self._checks(table, readiness, sessions, orders),
        )

    def _sessions(self, table: SessionTable, readiness: Readiness) -> Sessions:
        return Sessions(
            self.scheduler,
            self.clock,
            table,
            readiness,
            self.attempts,
            self.handoffs,
            self.links,
            self.adoption,
            self.ends,
            self.adapters,
            self.loop_lag,
            self.wakeup,
            self.settings,
            self.observer,
        )

    def _registrar(self, table: SessionTable, readiness: Readiness, sessions: Sessions) -> Registrar:
        return Registrar(
            self.scheduler,
            self.clock,
            table,
            readiness,
            sessions,
            self.attempts,
            self.links,
            self.adoption,
            self.ends,
            self.adapters,
            self.roles,
            self.decisions,
            self.loop_lag,
            self.settings,
            epoch=self.epoch,
        )

    def _reports(
        self, table: SessionTable, readiness: Readiness, sessions: Sessions, orders: InstanceOrders
    ) -> EngineReports:
        return EngineReports(
            self.scheduler,
            self.clock,
            table,
            readiness,
            sessions,
            orders,
            self.adoption,
            self.adapters,
            self.tokenizers,
            self.models,
            self.wakeup,
            self.settings,
            self.observer,
        )

    def _checks(
        self, table: SessionTable, readiness: Readiness, sessions: Sessions, orders: InstanceOrders
    ) -> InstanceChecks:
        return InstanceChecks(
            self.scheduler,
            self.clock,
            table,
            readiness,
            sessions,
            orders,
            self.attempts,
            self.handoffs,
            self.loop_lag,
            self.wakeup,
            self.settings,
        )
