"""The best that the oracle finds for a trace."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from sage_simulator.fleet_spec import InstanceModel
from sage_simulator.oracle import OracleOrder, OracleSimulation
from sage_simulator.simulation import SimulationResult
from sage_simulator.simulation_settings import SimulationSettings
from sage_simulator.traced_request import TracedRequest

#: Shares of targets that a placement may be predicted to use.  What comes later slows everybody down, so that a margin
#: keeps more in target where engine time is short, and fewer where it is not.
MOST_SHARES = (1.0, 0.7)


def run_oracle(
    trace: Sequence[TracedRequest], fleet: Sequence[InstanceModel], settings: SimulationSettings
) -> SimulationResult:
    """Play the trace in each order, with and without a margin, and return the run with the most requests in target."""
    runs = [
        OracleSimulation(trace, fleet, settings, order, most_share=most_share).run()
        for order, most_share in product(OracleOrder, MOST_SHARES)
    ]
    return max(runs, key=lambda run: sum(each.in_target for each in run.outcomes))
