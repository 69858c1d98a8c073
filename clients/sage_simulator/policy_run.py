"""One simulation under a policy that goes by its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from sage_simulator.fleet_spec import InstanceModel
from sage_simulator.report import Summary, summarize
from sage_simulator.simulation import Simulation
from sage_simulator.simulation_settings import SimulationError, SimulationSettings
from sage_simulator.traced_request import TracedRequest
from sage_simulator.workload import Workload
from scheduler_svc.domain.errors import UnknownPolicy
from scheduler_svc.domain.policies.catalogue import PolicyCatalogue, PolicyLoadError


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyRun:
    """A simulation to be run: what, where, under which policy.  Can be sent to another process."""

    workload: Workload
    fleet: Sequence[InstanceModel]
    policy: str
    rate: float | None = None  # requests per second; None: the replayed trace's own
    seed: int = 1
    settings: SimulationSettings = field(default_factory=SimulationSettings)

    def __call__(self) -> Summary:
        """Run it.  Raises SimulationError, also for an unknown policy; ValueError of the workload."""
        trace = self.workload.trace(rate=self.rate, seed=self.seed)
        return run_policy(trace, self.fleet, self.policy, replace(self.settings, seed=self.seed))


def run_policy(
    trace: Sequence[TracedRequest],
    fleet: Sequence[InstanceModel],
    policy: str,
    settings: SimulationSettings | None = None,
) -> Summary:
    """Simulate a trace on a fleet under a policy; ``settings`` say everything else.

    Policies that other distributions offer are found as the service finds them.  Raises SimulationError, also for an
    unknown policy.
    """
    world = settings or SimulationSettings()
    world = replace(world, scheduler=replace(world.scheduler, policy=policy))
    policies = known_policies(policy)
    return summarize(Simulation(trace, fleet, world, policies).run())


def known_policies(*wanted: str) -> PolicyCatalogue:
    """Return all policies, those of other distributions too.

    Raises SimulationError if one that is wanted is unknown, or one of another distribution cannot be loaded.
    """
    try:
        policies = PolicyCatalogue.with_plugins()
        for name in wanted:
            if name not in policies:
                raise UnknownPolicy(name, policies.names())
    except (UnknownPolicy, PolicyLoadError) as e:
        raise SimulationError(str(e)) from None
    return policies
