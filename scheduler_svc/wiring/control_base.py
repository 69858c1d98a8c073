"""What every part of ``control`` is built on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sage_common.clock import Clock
from scheduler_svc.config import SchedulerConfig
from scheduler_svc.control.instances.fleet_observer import FleetObserver
from scheduler_svc.control.journal.operator_decisions import OperatorDecisions
from scheduler_svc.control.requests.observer import Observer
from scheduler_svc.control.requests.tokenizers import Tokenizers
from scheduler_svc.control.timing.loop_lag import LoopLag
from scheduler_svc.control.timing.wakeup import Wakeup
from scheduler_svc.control.watching.fleet_statistics import FleetStatistics
from scheduler_svc.domain.policies.catalogue import PolicyCatalogue
from scheduler_svc.domain.scheduler import Scheduler
from scheduler_svc.wiring.earlier_scheduler import EarlierScheduler
from scheduler_svc.wiring.room_settings import scheduler_settings


@dataclass(frozen=True, kw_only=True, slots=True)
class ControlBase:
    """What every part of ``control`` is built on, and what only one of each there is."""

    config: SchedulerConfig
    clock: Clock
    tokenizers: Tokenizers
    epoch: int
    earlier: EarlierScheduler
    wall_clock: Callable[[], float]
    scheduler: Scheduler
    observer: FleetStatistics
    fleet_observer: FleetObserver
    decisions: OperatorDecisions
    wakeup: Wakeup
    loop_lag: LoopLag

    @property
    def models(self) -> frozenset[str]:
        """The models that the configuration names."""
        return frozenset(self.config.models) | self.config.scaling.models.keys()

    @property
    def survives(self) -> bool:
        """Whether executors and clients hold what runs for the next scheduler."""
        return self.earlier.proofs is not None


def build_base(
    config: SchedulerConfig,
    clock: Clock,
    tokenizers: Tokenizers,
    epoch: int,
    observe: Callable[[Scheduler], Observer],
    observe_fleet: FleetObserver,
    earlier: EarlierScheduler,
    decisions: OperatorDecisions | None,
    wall_clock: Callable[[], float],
) -> ControlBase:
    """Build it; see ``build_control``.  Raises UnknownPolicy, PolicyLoadError."""
    scheduler = Scheduler(scheduler_settings(config), PolicyCatalogue.with_plugins())
    statistics = FleetStatistics(observe(scheduler), scheduler.settings.default_targets, clock.now())
    return ControlBase(
        config=config,
        clock=clock,
        tokenizers=tokenizers,
        epoch=epoch,
        earlier=earlier,
        wall_clock=wall_clock,
        scheduler=scheduler,
        observer=statistics,
        fleet_observer=observe_fleet,
        decisions=decisions if decisions is not None else OperatorDecisions(clock),
        wakeup=Wakeup(),
        loop_lag=LoopLag(clock, statistics.lagged),
    )
