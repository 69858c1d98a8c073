"""The objects of ``control/instances``, connected to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scheduler_svc.control.adapters.adapters import Adapters
from scheduler_svc.control.adoption.adoption import Adoption
from scheduler_svc.control.instances.attempt_outcomes import AttemptOutcomes
from scheduler_svc.control.instances.engine_losses import EngineLosses
from scheduler_svc.control.instances.engine_reports import EngineReports
from scheduler_svc.control.instances.engine_states import EngineStates
from scheduler_svc.control.instances.heartbeats import Heartbeats
from scheduler_svc.control.instances.instance_checks import InstanceChecks
from scheduler_svc.control.instances.instance_list import InstanceList
from scheduler_svc.control.instances.instance_orders import InstanceOrders
from scheduler_svc.control.instances.instance_work import InstanceWork
from scheduler_svc.control.instances.lease import Leases
from scheduler_svc.control.instances.readiness import Readiness
from scheduler_svc.control.instances.registrar import Registrar
from scheduler_svc.control.instances.session_table import SessionTable
from scheduler_svc.control.instances.sessions import Sessions
from scheduler_svc.control.instances.tokenizer_sources import TokenizerSources
from scheduler_svc.control.leadership.earlier_instance import EarlierInstance
from scheduler_svc.control.roles.kept_roles import KeptRoles
from scheduler_svc.control.sleep.wakes import Wakes
from scheduler_svc.wiring.attempts import Attempts
from scheduler_svc.wiring.control_base import ControlBase
from scheduler_svc.wiring.requests import Requests
from scheduler_svc.wiring.room_settings import session_settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Instances:
    """What has to do with instances and their executors' sessions."""

    table: SessionTable
    registrar: Registrar
    sessions: Sessions
    reports: EngineReports
    orders: InstanceOrders
    checks: InstanceChecks


def build_instances(
    base: ControlBase,
    requests: Requests,
    attempts: Attempts,
    adoption: Adoption,
    adapters: Adapters,
    roles: KeptRoles,
) -> Instances:
    """Build them, and have them told of attempts and of the end of recovery."""
    scheduler, clock, wakeup, epoch = base.scheduler, base.clock, base.wakeup, base.epoch
    observer, settings = base.fleet_observer, session_settings(base.config)

    table = _session_table(base, requests, attempts)
    leases = Leases(clock, base.loop_lag)
    work = InstanceWork(attempts.table, attempts.handoffs, adoption, requests.ends, epoch=epoch)
    readiness = Readiness(scheduler, clock, table, settings, base.decisions, wakeup)
    losses = EngineLosses(scheduler, clock, readiness, work, observer, wakeup)
    instances = InstanceList(scheduler, clock, table, readiness, settings)
    sessions = Sessions(clock, table, readiness, leases, work, losses, adapters, settings)
    orders = InstanceOrders(scheduler, table, readiness, work, wakeup)
    wakes = Wakes(scheduler, readiness.sleeps, may_be_woken=orders.may_be_woken, wake=orders.wake)
    tokenizers = TokenizerSources(scheduler, table, requests.models)
    states = EngineStates(scheduler, clock, readiness, losses, adoption, adapters, tokenizers)
    heartbeats = Heartbeats(scheduler, clock, readiness, leases, observer, settings)
    attempts.events.subscribe(AttemptOutcomes(table, readiness, losses))
    return Instances(
        table=table,
        registrar=Registrar(table, sessions, instances, work, roles, leases, settings, epoch=epoch),
        sessions=sessions,
        reports=EngineReports(
            scheduler, clock, table, readiness, states, heartbeats, orders, adoption, adapters, wakeup
        ),
        orders=orders,
        checks=InstanceChecks(scheduler, clock, table, readiness, work, sessions, wakes, instances, wakeup),
    )


def _session_table(base: ControlBase, requests: Requests, attempts: Attempts) -> SessionTable:
    """Build the table of sessions, which writes down for the next scheduler who has one, or is awaited."""
    recovery = requests.recovery
    table = SessionTable(
        attempts.links,
        lambda models: base.earlier.keep_instances(_with_a_session({**recovery.awaited_models, **models})),
    )
    recovery.on_end(table.tell_seen)
    return table


def _with_a_session(models: Mapping[str, str]) -> dict[str, EarlierInstance]:
    """Return the instances by id; what they hold is not said: they get more before it could be written down."""
    return {instance_id: EarlierInstance(model=model) for instance_id, model in models.items()}
