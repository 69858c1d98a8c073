"""What the entrance of the domain stands on."""

from __future__ import annotations

from scheduler_svc.domain.capacity.ledger import Ledger
from scheduler_svc.domain.door import Door
from scheduler_svc.domain.errors import PolicyFailed
from scheduler_svc.domain.fleet.engine_reports import EngineReports
from scheduler_svc.domain.fleet.registry import Registry
from scheduler_svc.domain.fleet.running_attempts import RunningAttempts
from scheduler_svc.domain.give_ups import GiveUps
from scheduler_svc.domain.placement.placer import Placer
from scheduler_svc.domain.placement.split_planner import SplitPlanner
from scheduler_svc.domain.policies.catalogue import PolicyCatalogue
from scheduler_svc.domain.policies.fleet_signals import FleetSignals
from scheduler_svc.domain.policies.in_force import PolicyInForce
from scheduler_svc.domain.prediction.output_length import OutputLengths
from scheduler_svc.domain.prefixes.cached_prefixes import CachedPrefixes
from scheduler_svc.domain.queue import ModelQueue
from scheduler_svc.domain.request import RequestKey
from scheduler_svc.domain.roles.role_balancer import RoleBalancer
from scheduler_svc.domain.scaling.scaler import Scaler
from scheduler_svc.domain.scheduling_pass import SchedulingPass
from scheduler_svc.domain.settings import SchedulerSettings
from scheduler_svc.domain.shares.tenant_charges import TenantCharges
from scheduler_svc.domain.shares.tenant_use import TenantUses


class Parts:
    """Makes the objects of the domain that keep something; every part of the entrance works with the same ones."""

    def __init__(self, settings: SchedulerSettings, policies: PolicyCatalogue) -> None:
        """Start with the policy that the settings name.  Raises UnknownPolicy."""
        self.settings = settings
        self.more = False  # the last pass stopped at max_decisions_per_pass
        self._policies = policies
        self._policy = PolicyInForce(policies, settings)
        self._registry = Registry(max_instances=settings.max_instances, max_models=settings.max_models)
        self._ledger = Ledger()
        self._prefixes = CachedPrefixes(settings.prefix)
        self._reports = EngineReports(self._registry, self._ledger, self._prefixes, settings)
        self._outputs = OutputLengths(quantile=settings.output_quantile, min_samples=settings.output_min_samples)
        self._attempts = RunningAttempts(self._registry, self._ledger, self._outputs, self._prefixes)
        self._signals = FleetSignals(settings.default_targets)
        self._splits = SplitPlanner(settings.pd)
        self._placer = Placer(
            self._ledger,
            self._outputs,
            self._signals,
            self._splits,
            self._prefixes,
            automatic_roles=settings.roles.automatic,
        )
        self._scaler = Scaler(settings.scaling, self._registry, self._signals.targets_of)
        self._roles = RoleBalancer(settings.roles, self._registry)
        self._pass = SchedulingPass(
            self._placer,
            backfill_depth=settings.backfill_depth,
            instances_per_quiet_one=settings.instances_per_quiet_one,
            default_targets=settings.default_targets,
        )
        self._shadow_name = ""  # in the catalogue; empty: none
        self._queued: dict[RequestKey, ModelQueue] = {}
        self._uses = TenantUses(settings.shares)
        self._door = Door(self._uses, self._queued.pop, refuses_hopeless=settings.refuse_hopeless)
        self._give_ups = GiveUps(settings, self._prefixes)
        self._charges = TenantCharges(self._uses)
        self._passes = 0
        self._failures: list[tuple[RequestKey, PolicyFailed]] = []  # not taken yet; at most one for each pass
