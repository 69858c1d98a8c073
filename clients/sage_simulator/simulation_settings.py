"""How the world around the scheduler behaves in a simulation."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from sage_simulator.fleet_event import FleetEvent
from sage_simulator.heartbeats import HeartbeatTimes
from sage_simulator.kv_transfer import KvTransfer
from scheduler_svc.domain.pd.settings import PdSettings, SplitMode
from scheduler_svc.domain.roles.settings import RoleSettings
from scheduler_svc.domain.scaling.settings import Bounds, ScalingSettings
from scheduler_svc.domain.settings import SchedulerSettings


class SimulationError(ValueError):
    """The simulation cannot be run as asked; the message says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulationSettings:
    """How the world around the scheduler behaves.  Raises SimulationError with the offending key named."""

    scheduler: SchedulerSettings = field(default_factory=SchedulerSettings)
    network_delay_s: float = 5e-4  # between scheduler and executor, one way
    heartbeats: HeartbeatTimes = field(default_factory=HeartbeatTimes)
    default_max_tokens: int = 2_048  # of requests that state none; longer outputs are cut there
    default_deadline_s: float = 3_600.0  # of requests that state none; it is no target
    kv_transfer: KvTransfer = field(default_factory=KvTransfer)
    noise: float = 0.0  # sigma of the logarithm of the steps' random factor, whose mean is 1
    measures_speed: bool = True  # executors measure their engines before the first request
    events: tuple[FleetEvent, ...] = ()
    warm_up_s: float = 60.0  # from an instance's start until it is READY, where ``scheduler.scaling`` is enabled
    seed: int = 1  # of everything random in the run

    def __post_init__(self) -> None:
        if self.network_delay_s < 0:
            raise SimulationError(f"network_delay_s: {self.network_delay_s} is negative")
        if self.default_max_tokens < 1:
            raise SimulationError(f"default_max_tokens: {self.default_max_tokens} is not at least 1")
        if self.default_deadline_s <= 0:
            raise SimulationError(f"default_deadline_s: {self.default_deadline_s} is not a positive number")
        if self.warm_up_s < 0:
            raise SimulationError(f"warm_up_s: {self.warm_up_s} is negative")
        if not 0 <= self.noise <= 2:
            raise SimulationError(f"noise: {self.noise} is not from 0 to 2")

    def autoscaled(self, least: int, most: int, *, warm_up_s: float, down_delay_s: float) -> SimulationSettings:
        """Let the number of instances of each model and role follow the load within these bounds.  Raises ValueError.

        ``warm_up_s``: of each start.  ``down_delay_s``: how long fewer have to be needed before fewer are desired.
        """
        scaling = ScalingSettings(enabled=True, bounds=Bounds(least=least, most=most), down_delay_s=down_delay_s)
        return replace(self, scheduler=replace(self.scheduler, scaling=scaling), warm_up_s=warm_up_s)

    def with_automatic_roles(self) -> SimulationSettings:
        """Let instances change between prefill and decode as the load asks for."""
        return replace(self, scheduler=replace(self.scheduler, roles=RoleSettings(automatic=True)))


def splitting(mode: str) -> SchedulerSettings:
    """Return the scheduler's default settings, but for when requests are split.  Raises ValueError for no mode."""
    return SchedulerSettings(pd=PdSettings(mode=SplitMode(mode)))
