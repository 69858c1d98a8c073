"""The best that the oracle finds for a trace."""

from __future__ import annotations

from collections.abc import Sequence

from sage_simulator.fleet_spec import InstanceModel
from sage_simulator.oracle import OracleOrder, OracleSimulation
from sage_simulator.simulation import SimulationResult
from sage_simulator.simulation_settings import SimulationSettings
from sage_simulator.traced_request import TracedRequest


def run_oracle(
    trace: Sequence[TracedRequest], fleet: Sequence[InstanceModel], settings: SimulationSettings
) -> SimulationResult:
    """Play the trace in each of the oracle's orders and return the run with the most requests in target."""
    runs = [OracleSimulation(trace, fleet, settings, order).run() for order in OracleOrder]
    return max(runs, key=lambda run: sum(each.in_target for each in run.outcomes))
