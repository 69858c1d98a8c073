"""The objects of ``control``, connected to each other and to nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sage_common.clock import Clock
from scheduler_svc.config import SchedulerConfig
from scheduler_svc.control.adapters.adapter_use import AdapterUses
from scheduler_svc.control.adapters.adapters import Adapters
from scheduler_svc.control.adapters.registry import AdapterRegistry
from scheduler_svc.control.adoption.adoption import Adoption
from scheduler_svc.control.adoption.handing_over import handed_over
from scheduler_svc.control.adoption.restoration import Restoration
from scheduler_svc.control.attempts.attempt_table import AttemptTable
from scheduler_svc.control.attempts.dispatcher import Dispatcher
from scheduler_svc.control.attempts.kv_releases import KvReleases
from scheduler_svc.control.attempts.request_runner import RequestRunner
from scheduler_svc.control.attempts.warm_ups import WarmUps
from scheduler_svc.control.batches.batches import Batches
from scheduler_svc.control.detached.detached_work import DetachedWork
from scheduler_svc.control.instances.fleet_observer import NULL_FLEET_OBSERVER, FleetObserver
from scheduler_svc.control.instances.watchdog import Watchdog
from scheduler_svc.control.journal.batches import BatchStore
from scheduler_svc.control.journal.detached import DetachedStore
from scheduler_svc.control.journal.operator_decisions import OperatorDecisions
from scheduler_svc.control.leadership.earlier_instance import EarlierInstance
from scheduler_svc.control.requests.explain import Explainer
from scheduler_svc.control.requests.intake import Intake
from scheduler_svc.control.requests.model_directory import ModelDirectory
from scheduler_svc.control.requests.observer import NULL_OBSERVER, Observer
from scheduler_svc.control.requests.recovery import Recovery
from scheduler_svc.control.requests.request_table import RequestTable
from scheduler_svc.control.requests.tokenizers import Tokenizers
from scheduler_svc.control.roles.kept_roles import KeptRoles
from scheduler_svc.control.roles.role_watch import RoleWatch
from scheduler_svc.control.scaling.scaling_watch import RETURN_S, ScalingWatch
from scheduler_svc.control.sleep.device_groups import DeviceGroups
from scheduler_svc.control.timing.loop_lag import LoopLag
from scheduler_svc.control.timing.wakeup import Wakeup
from scheduler_svc.control.watching.fleet_watch import FleetWatch
from scheduler_svc.domain.scheduler import Scheduler
from scheduler_svc.transport.openai_lines.codec import OpenAiLines
from scheduler_svc.wiring.attempts import Attempts, build_attempts
from scheduler_svc.wiring.control_base import ControlBase, build_base
from scheduler_svc.wiring.earlier_scheduler import NO_EARLIER_SCHEDULER, EarlierScheduler
from scheduler_svc.wiring.instances import Instances, build_instances
from scheduler_svc.wiring.requests import Requests, build_requests
from scheduler_svc.wiring.room_settings import (
    batch_settings,
    device_group_settings,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ControlPlane:
    """The objects of ``control``, connected to each other and to nothing else; tests drive them on a virtual clock."""

    scheduler: Scheduler
    clock: Clock
    requests: RequestTable
    attempts: AttemptTable
    runner: RequestRunner
    kv_releases: KvReleases
    instances: Instances
    adapters: Adapters
    device_groups: DeviceGroups
    adoption: Adoption
    recovery: Recovery
    dispatcher: Dispatcher
    intake: Intake
    models: ModelDirectory
    watchdog: Watchdog
    warm_ups: WarmUps
    loop_lag: LoopLag
    explainer: Explainer
    fleet_watch: FleetWatch
    scaling: ScalingWatch
    roles: RoleWatch
    wakeup: Wakeup
    decisions: OperatorDecisions
    epoch: int
    detached: DetachedWork | None  # None: no journal
    restoration: Restoration | None
    batches: Batches | None  # None: no journal
    wall_clock: Callable[[], float]

    def wall_s(self) -> float:
        """Return seconds since 1970 at the control clock's zero."""
        return self.wall_clock() - self.clock.now()

    def handed_over(self) -> Mapping[str, EarlierInstance]:
        """Return what the next scheduler is to know of the instances.  Call once all sessions are ended."""
        models = self.instances.table.models
        return handed_over(models, self.requests, self.intake.ends, self.recovery, self.adoption)

    async def load_detached(self) -> None:
        """Read the detached work that an earlier scheduler left.  Call before anything is accepted.

        Raises JournalUnavailable.
        """
        if self.detached is not None and self.restoration is not None:
            self.restoration.begin(await self.detached.load())

    async def keep_detached(self) -> None:
        """Go on with the detached work of an earlier scheduler, and delete results whose time is over.

        Both at once: a full journal takes nothing of what goes on until something is deleted.
        """
        if self.detached is not None and self.restoration is not None:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.restoration.run())
                tasks.create_task(self.detached.expire())


def build_control(
    config: SchedulerConfig,
    clock: Clock,
    tokenizers: Tokenizers,
    *,
    epoch: int,
    observe: Callable[[Scheduler], Observer] = lambda scheduler: NULL_OBSERVER,
    observe_fleet: FleetObserver = NULL_FLEET_OBSERVER,
    earlier: EarlierScheduler = NO_EARLIER_SCHEDULER,
    decisions: OperatorDecisions | None = None,
    detached_store: DetachedStore | None = None,
    batch_store: BatchStore | None = None,
    wall_clock: Callable[[], float] = time.time,
) -> ControlPlane:
    """Build the objects of ``control``.  ``observe`` makes the observer of requests; ``observe_fleet`` is of instances.

    ``earlier``: what an earlier scheduler left.  ``decisions``: of operators; None: they end with the process.
    ``detached_store``: where detached work is kept; None: nowhere.  ``batch_store``: the same of batches and files.
    ``wall_clock``: seconds since 1970.

    Raises:
        UnknownPolicy: no policy has the configured name.
        PolicyLoadError: an installed policy cannot be loaded.
    """
    base = build_base(config, clock, tokenizers, epoch, observe, observe_fleet, earlier, decisions, wall_clock)
    requests = build_requests(base, detached_store)
    attempts = build_attempts(base, requests)
    restoration = _restoration(base, requests, attempts)
    adoption = _adoption(base, requests, attempts, restoration)
    adapters = _adapters(base, requests, restoration)
    kept_roles = KeptRoles(base.scheduler, clock, attempts.links, base.decisions)
    instances = build_instances(base, requests, attempts, adoption, adapters, kept_roles)
    device_groups = _device_groups(base, requests, instances)
    return ControlPlane(
        scheduler=base.scheduler,
        clock=clock,
        requests=requests.table,
        attempts=attempts.table,
        runner=attempts.runner,
        kv_releases=attempts.kv_releases,
        instances=instances,
        adapters=adapters,
        device_groups=device_groups,
        adoption=adoption,
        recovery=requests.recovery,
        dispatcher=Dispatcher(attempts.runner, attempts.handoffs, base.wakeup, base.observer),
        intake=requests.intake,
        models=requests.models,
        watchdog=_watchdog(base, requests, attempts, instances, adapters, device_groups),
        warm_ups=attempts.warm_ups,
        loop_lag=base.loop_lag,
        explainer=Explainer(base.scheduler, clock, requests.table),
        fleet_watch=FleetWatch(base.scheduler, clock, requests.table, base.observer),
        scaling=_scaling(base, requests),
        roles=_roles(base, requests, kept_roles),
        wakeup=base.wakeup,
        decisions=base.decisions,
        epoch=epoch,
        detached=requests.detached,
        restoration=restoration,
        batches=_batches(base, requests, batch_store),
        wall_clock=wall_clock,
    )


# --- the parts, in the order in which they are built ------------------------------------------------------------------


def _batches(base: ControlBase, requests: Requests, store: BatchStore | None) -> Batches | None:
    if store is None:
        return None
    settings = batch_settings(base.config)
    return Batches(store, requests.intake, OpenAiLines(), base.clock, base.wall_clock, settings)


def _restoration(base: ControlBase, requests: Requests, attempts: Attempts) -> Restoration | None:
    if requests.detached is None:
        return None
    return Restoration(
        requests.detached,
        requests.codec,
        base.clock,
        requests.table,
        attempts.runner,
        requests.recovery,
        base.observer,
    )


def _adoption(base: ControlBase, requests: Requests, attempts: Attempts, restoration: Restoration | None) -> Adoption:
    return Adoption(
        base.scheduler,
        base.clock,
        requests.table,
        attempts.table,
        attempts.runner,
        requests.intake.grace,
        requests.recovery,
        base.observer,
        on=base.survives,
        epoch=base.epoch,
        restoration=restoration,
    )


def _adapters(base: ControlBase, requests: Requests, restoration: Restoration | None) -> Adapters:
    uses = AdapterUses(base.clock)
    requests.table.on_admission(uses.accepted)
    requests.table.on_end(lambda live, reason: uses.ended(live))
    return Adapters(
        base.scheduler,
        requests.models,
        base.wakeup,
        AdapterRegistry(base.decisions),
        uses,
        returning=lambda: requests.recovery.open or bool(restoration),
    )


def _roles(base: ControlBase, requests: Requests, kept: KeptRoles) -> RoleWatch:
    """Build the watch over roles.  Where nothing says who was there before, executors get a while to come back."""
    return RoleWatch(
        base.scheduler,
        base.clock,
        base.decisions,
        kept,
        base.wakeup,
        recovering=lambda: requests.recovery.open,
        first_look_at=base.clock.now() + (0.0 if base.survives else RETURN_S),
    )


def _scaling(base: ControlBase, requests: Requests) -> ScalingWatch:
    """Build the watch over desired instances.  Where nothing says who was there before, executors get a while."""
    return ScalingWatch(
        base.scheduler,
        base.clock,
        lambda: requests.models.waiting_by_model,
        recovering=lambda: requests.recovery.open,
        first_look_at=base.clock.now() + (0.0 if base.survives else RETURN_S),
    )


def _device_groups(base: ControlBase, requests: Requests, instances: Instances) -> DeviceGroups:
    models = requests.models
    return DeviceGroups(
        base.scheduler,
        base.clock,
        instances.orders,
        device_group_settings(base.config),
        waiting_elsewhere=lambda: models.waiting_by_model,
        knows=lambda model: bool(models.facts(model)),
    )


def _watchdog(
    base: ControlBase,
    requests: Requests,
    attempts: Attempts,
    instances: Instances,
    adapters: Adapters,
    device_groups: DeviceGroups,
) -> Watchdog:
    return Watchdog(
        base.scheduler,
        base.clock,
        requests.table,
        instances.checks,
        attempts.warm_ups,
        adapters,
        device_groups,
        base.wakeup,
        orphan_timeout_s=base.config.queue.orphan_timeout_s,
        configured=base.models,
    )
