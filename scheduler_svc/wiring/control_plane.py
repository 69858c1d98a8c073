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
from scheduler_svc.control.attempts.executor_links import ExecutorLinks
from scheduler_svc.control.attempts.handoffs import Handoffs
from scheduler_svc.control.attempts.instance_events import InstanceEvents
from scheduler_svc.control.attempts.kv_releases import KvReleases
from scheduler_svc.control.attempts.request_runner import RequestRunner
from scheduler_svc.control.attempts.warm_ups import WarmUps
from scheduler_svc.control.batches.batches import Batches
from scheduler_svc.control.detached.codec import Codec
from scheduler_svc.control.detached.detached_work import DetachedWork
from scheduler_svc.control.instances.fleet_observer import NULL_FLEET_OBSERVER, FleetObserver
from scheduler_svc.control.instances.watchdog import Watchdog
from scheduler_svc.control.journal.batches import BatchStore
from scheduler_svc.control.journal.detached import DetachedStore
from scheduler_svc.control.journal.operator_decisions import OperatorDecisions
from scheduler_svc.control.leadership.earlier_instance import EarlierInstance
from scheduler_svc.control.requests.explain import Explainer
from scheduler_svc.control.requests.intake import Intake
from scheduler_svc.control.requests.kept_ends import KeptEnds
from scheduler_svc.control.requests.model_directory import ModelDirectory
from scheduler_svc.control.requests.observer import NULL_OBSERVER, Observer
from scheduler_svc.control.requests.receipts import Receipts
from scheduler_svc.control.requests.recovery import Recovery
from scheduler_svc.control.requests.request_table import RequestTable
from scheduler_svc.control.requests.tokenizers import Tokenizers
from scheduler_svc.control.roles.kept_roles import KeptRoles
from scheduler_svc.control.roles.role_watch import RoleWatch
from scheduler_svc.control.scaling.scaling_watch import RETURN_S, ScalingWatch
from scheduler_svc.control.sleep.device_groups import DeviceGroups
from scheduler_svc.control.timing.loop_lag import LoopLag
from scheduler_svc.control.timing.wakeup import Wakeup
from scheduler_svc.control.watching.fleet_statistics import FleetStatistics
from scheduler_svc.control.watching.fleet_watch import FleetWatch
from scheduler_svc.domain.policies.catalogue import PolicyCatalogue
from scheduler_svc.domain.scheduler import Scheduler
from scheduler_svc.transport.detached_records import DetachedRecords
from scheduler_svc.transport.openai_lines.codec import OpenAiLines
from scheduler_svc.wiring.earlier_scheduler import NO_EARLIER_SCHEDULER, EarlierScheduler
from scheduler_svc.wiring.instances import Instances, InstancesBuilder
from scheduler_svc.wiring.room_settings import (
    batch_settings,
    detached_settings,
    device_group_settings,
    intake_settings,
    record_limits,
    scheduler_settings,
    session_settings,
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
    base = _base(config, clock, tokenizers, epoch, observe, earlier, wall_clock)
    decisions = decisions if decisions is not None else OperatorDecisions(clock)
    requests = _requests(base, detached_store)
    attempts = _attempts(base, requests)
    restoration = _restoration(base, requests, attempts)
    adoption = _adoption(base, requests, attempts, restoration)
    adapters = _adapters(base, requests, decisions, restoration)
    kept_roles = KeptRoles(base.scheduler, clock, attempts.links, decisions)
    instances = _instances(base, requests, attempts, adoption, observe_fleet, decisions, adapters, kept_roles)
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
        roles=_roles(base, requests, decisions, kept_roles),
        wakeup=base.wakeup,
        decisions=decisions,
        epoch=epoch,
        detached=requests.detached,
        restoration=restoration,
        batches=_batches(base, requests, batch_store),
        wall_clock=wall_clock,
    )


# --- the parts, in the order in which they are built ------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _Base:
    """What every part is built on."""

    config: SchedulerConfig
    clock: Clock
    tokenizers: Tokenizers
    epoch: int
    earlier: EarlierScheduler
    wall_clock: Callable[[], float]
    scheduler: Scheduler
    observer: FleetStatistics
    wakeup: Wakeup
    loop_lag: LoopLag

    @property
    def models(self) -> frozenset[str]:
        """The models that the configuration names."""
        return frozenset(self.config.models).union(self.config.scaling.models)

    @property
    def survives(self) -> bool:
        """Whether executors and clients hold what runs for the next scheduler."""
        return self.earlier.proofs is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Requests:
    """What has to do with requests, whether or not they run."""

    table: RequestTable
    models: ModelDirectory
    recovery: Recovery
    ends: KeptEnds
    codec: Codec
    detached: DetachedWork | None
    intake: Intake


@dataclass(frozen=True, kw_only=True, slots=True)
class _Attempts:
    """What has to do with the attempts of requests at executors."""

    links: ExecutorLinks
    events: InstanceEvents
    table: AttemptTable
    runner: RequestRunner
    kv_releases: KvReleases
    handoffs: Handoffs
    warm_ups: WarmUps


def _base(
    config: SchedulerConfig,
    clock: Clock,
    tokenizers: Tokenizers,
    epoch: int,
    observe: Callable[[Scheduler], Observer],
    earlier: EarlierScheduler,
    wall_clock: Callable[[], float],
) -> _Base:
    scheduler = Scheduler(scheduler_settings(config), PolicyCatalogue.with_plugins())
    statistics = FleetStatistics(observe(scheduler), scheduler.settings.default_targets, clock.now())
    return _Base(
        config=config,
        clock=clock,
        tokenizers=tokenizers,
        epoch=epoch,
        earlier=earlier,
        wall_clock=wall_clock,
        scheduler=scheduler,
        observer=statistics,
        wakeup=Wakeup(),
        loop_lag=LoopLag(clock, statistics.lagged),
    )


def _batches(base: _Base, requests: _Requests, store: BatchStore | None) -> Batches | None:
    if store is None:
        return None
    settings = batch_settings(base.config)
    return Batches(store, requests.intake, OpenAiLines(), base.clock, base.wall_clock, settings)


def _requests(base: _Base, detached_store: DetachedStore | None) -> _Requests:
    config, scheduler, clock, epoch = base.config, base.scheduler, base.clock, base.epoch
    table = RequestTable(scheduler, clock, record_limits(config))
    models = ModelDirectory(scheduler, clock, base.tokenizers, base.models, waiting_limit=config.queue.limit_per_model)
    recovery = Recovery(clock, base.earlier.instances, config.recovery.limit_s, epoch=epoch)
    ends = KeptEnds(scheduler, clock, on=base.survives)
    codec, detached = DetachedRecords(), None
    if detached_store is not None:
        detached = DetachedWork(detached_store, codec, clock, base.wall_clock, detached_settings(config), epoch=epoch)
        detached.on_end(ends.recorded)
        detached.on_removal(table.forget_kept)
        ends.unrecorded = lambda live: live.journaled and not live.end_is_published
    intake = Intake(
        scheduler,
        clock,
        table,
        base.tokenizers,
        models,
        base.loop_lag,
        base.wakeup,
        intake_settings(config),
        recovery,
        ends,
        Receipts(base.earlier.receipts, clock, recovery, epoch=epoch, wall=base.earlier.wall),
        base.observer,
        detached,
    )
    return _Requests(
        table=table, models=models, recovery=recovery, ends=ends, codec=codec, detached=detached, intake=intake
    )


def _attempts(base: _Base, requests: _Requests) -> _Attempts:
    scheduler, clock, epoch = base.scheduler, base.clock, base.epoch
    links, events = ExecutorLinks(), InstanceEvents()
    table = AttemptTable(links, clock, events)
    runner = RequestRunner(
        scheduler,
        clock,
        requests.table,
        table,
        events,
        base.wakeup,
        epoch=epoch,
        max_attempts=base.config.queue.max_attempts,
    )
    kv_releases = KvReleases(scheduler, clock, links, runner.release)
    return _Attempts(
        links=links,
        events=events,
        table=table,
        runner=runner,
        kv_releases=kv_releases,
        handoffs=Handoffs(runner, kv_releases),
        warm_ups=WarmUps(scheduler, clock, table, epoch=epoch),
    )


def _restoration(base: _Base, requests: _Requests, attempts: _Attempts) -> Restoration | None:
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


def _adoption(base: _Base, requests: _Requests, attempts: _Attempts, restoration: Restoration | None) -> Adoption:
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


def _instances(
    base: _Base,
    requests: _Requests,
    attempts: _Attempts,
    adoption: Adoption,
    observer: FleetObserver,
    decisions: OperatorDecisions,
    adapters: Adapters,
    roles: KeptRoles,
) -> Instances:
    recovery = requests.recovery
    instances = InstancesBuilder(
        scheduler=base.scheduler,
        clock=base.clock,
        attempts=attempts.table,
        handoffs=attempts.handoffs,
        links=attempts.links,
        tokenizers=base.tokenizers,
        loop_lag=base.loop_lag,
        wakeup=base.wakeup,
        models=requests.models,
        settings=session_settings(base.config),
        epoch=base.epoch,
        observer=observer,
        adoption=adoption,
        ends=requests.ends,
        decisions=decisions,
        adapters=adapters,
        roles=roles,
    ).build(lambda models: base.earlier.keep_instances(_with_a_session({**recovery.awaited_models, **models})))
    recovery.on_end(instances.table.tell_seen)
    attempts.events.subscribe(instances.outcomes)
    return instances


def _adapters(
    base: _Base, requests: _Requests, decisions: OperatorDecisions, restoration: Restoration | None
) -> Adapters:
    uses = AdapterUses(base.clock)
    requests.table.on_admission(uses.accepted)
    requests.table.on_end(lambda live, reason: uses.ended(live))
    return Adapters(
        base.scheduler,
        requests.models,
        base.wakeup,
        AdapterRegistry(decisions),
        uses,
        returning=lambda: requests.recovery.open or bool(restoration),
    )


def _roles(base: _Base, requests: _Requests, decisions: OperatorDecisions, kept: KeptRoles) -> RoleWatch:
    """Build the watch over roles.  Where nothing says who was there before, executors get a while to come back."""
    return RoleWatch(
        base.scheduler,
        base.clock,
        decisions,
        kept,
        base.wakeup,
        recovering=lambda: requests.recovery.open,
        first_look_at=base.clock.now() + (0.0 if base.survives else RETURN_S),
    )


def _scaling(base: _Base, requests: _Requests) -> ScalingWatch:
    """Build the watch over desired instances.  Where nothing says who was there before, executors get a while."""
    return ScalingWatch(
        base.scheduler,
        base.clock,
        lambda: requests.models.waiting_by_model,
        recovering=lambda: requests.recovery.open,
        first_look_at=base.clock.now() + (0.0 if base.survives else RETURN_S),
    )


def _device_groups(base: _Base, requests: _Requests, instances: Instances) -> DeviceGroups:
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
    base: _Base,
    requests: _Requests,
    attempts: _Attempts,
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


def _with_a_session(models: Mapping[str, str]) -> dict[str, EarlierInstance]:
    """Return the instances by id; what they hold is not said: they get more before it could be written down."""
    return {instance_id: EarlierInstance(model=model) for instance_id, model in models.items()}
