"""How the world around the scheduler behaves in a simulation."""

from __future__ import annotations

from dataclasses import dataclass, field

from sage_simulator.heartbeats import HeartbeatTimes
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
    seed: int = 1  # of everything random in the run

    def __post_init__(self) -> None:
        if self.scheduler.pd.enabled:
            raise SimulationError(
                f"pd.mode {self.scheduler.pd.mode.value}: the simulator runs whole requests only; use mode never"
            )
        if self.network_delay_s < 0:
            raise SimulationError(f"network_delay_s: {self.network_delay_s} is negative")
        if self.default_max_tokens < 1:
            raise SimulationError(f"default_max_tokens: {self.default_max_tokens} is not at least 1")
        if self.default_deadline_s <= 0:
            raise SimulationError(f"default_deadline_s: {self.default_deadline_s} is not a positive number")
