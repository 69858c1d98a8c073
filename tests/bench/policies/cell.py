"""One cell of the benchmark: a policy, a load, a fleet."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from sage_simulator.fleet_capacity import RequestMix, fleet_capacity
from sage_simulator.oracle import ORACLE
from sage_simulator.oracle_run import run_oracle
from sage_simulator.simulation import Simulation
from sage_simulator.traces import scale_to_rate
from scheduler_svc.domain.policies.catalogue import PolicyCatalogue
from tests.bench.policies.figures import Figures
from tests.bench.policies.fleets import SEPARATED, find_fleet, settings_of
from tests.bench.policies.traffic import find_traffic

#: Below this load arrivals last longer, so that there are as many requests as at this load.
_FEWEST = 0.2
_FIRST_POLICY = "fifo"  # an oracle has no policy, and the settings need one


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """What the policies of one comparison have in common."""

    traffic: str
    fleet: str
    slots: int
    targets: str

    def __str__(self) -> str:
        return f"{self.traffic} {self.fleet} {self.slots} {self.targets}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One run.  Can be sent to another process."""

    group: Group
    policy: str  # a name in the catalogue, perhaps with a variant, or ``ORACLE``
    load: float  # share of the fleet's computed capacity
    seed: int
    duration_s: float  # of arrivals
    traces: Path | None = None  # the directory of recorded traces

    @property
    def key(self) -> str:
        """Names the cell in a file of results."""
        return f"{self.group}|{self.policy}|{self.load:g}|{self.seed}|{self.duration_s:g}"

    def at(self, load: float) -> Cell:
        """Return the cell at another load."""
        return replace(self, load=load)

    def run(self) -> Figures:
        """Simulate it.  Raises what the simulator raises, FileNotFoundError without its trace."""
        group = self.group
        traffic, fleet = find_traffic(group.traffic, self.traces), find_fleet(group.fleet, group.slots)
        split = group.fleet == SEPARATED
        trace = traffic.trace(
            rate=self.load * fleet_capacity(fleet, traffic.mix(), split=split),
            duration_s=self.duration_s * max(1.0, _FEWEST / self.load),
            seed=self.seed,
            targets=group.targets,
        )
        # The load is of the requests that are replayed, which may be longer or shorter than those of the whole trace.
        trace = scale_to_rate(trace, self.load * fleet_capacity(fleet, RequestMix.of(trace), split=split))
        if self.policy == ORACLE:
            return Figures.of(run_oracle(trace, fleet, settings_of(group.fleet, _FIRST_POLICY, self.seed)))
        settings = settings_of(group.fleet, self.policy, self.seed)
        return Figures.of(Simulation(trace, fleet, settings, PolicyCatalogue.with_plugins()).run())
