"""``sagectl simulate``: what a policy does with a load on a modelled fleet."""

from __future__ import annotations

import click

from sagectl.simulation.calibrate import calibrate
from sagectl.simulation.run import run
from sagectl.simulation.sweep import sweep


@click.group()
def simulate() -> None:
    """Replay a load against the scheduler on modelled engines, in virtual time.

    Needs no scheduler, engine or GPU.
    """


simulate.add_command(run)
simulate.add_command(sweep)
simulate.add_command(calibrate)
