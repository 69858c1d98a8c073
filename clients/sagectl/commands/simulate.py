"""``sagectl simulate``: what a policy does with a load on a modelled fleet."""

from __future__ import annotations

from sagectl.options.command import group
from sagectl.simulation.calibrate import calibrate
from sagectl.simulation.run import run
from sagectl.simulation.sweep import sweep


@group()
def simulate() -> None:
    """Simulate a fleet under a load, in virtual time.

    The scheduler's own policies decide on modelled engines.  Needs no scheduler, engine or GPU.
    """


simulate.add_command(run)
simulate.add_command(sweep)
simulate.add_command(calibrate)
