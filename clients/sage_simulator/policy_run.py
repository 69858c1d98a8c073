"""One simulation under a policy that goes by its name."""

from __future__ import annotations

from collections.abc import Sequence

from sage_simulator.fleet_spec import InstanceModel
from sage_simulator.report import Summary, summarize
from sage_simulator.simulation import Simulation, SimulationError, SimulationSettings
from sage_simulator.traced_request import TracedRequest
from scheduler_svc.domain.errors import UnknownPolicy
from scheduler_svc.domain.policies.catalogue import PolicyCatalogue
from scheduler_svc.domain.settings import SchedulerSettings


def run_policy(trace: Sequence[TracedRequest], fleet: Sequence[InstanceModel], policy: str) -> Summary:
    """Simulate a trace on a fleet under a policy, with everything else at its default.

    Policies that other distributions offer are found as the service finds them.  Raises SimulationError, also for an
    unknown policy.
    """
    settings = SimulationSettings(scheduler=SchedulerSettings(policy=policy))
    try:
        return summarize(Simulation(trace, fleet, settings, PolicyCatalogue.with_plugins()).run())
    except UnknownPolicy as e:
        raise SimulationError(str(e)) from None
