"""``sagectl down``: stops what ``sagectl up`` started."""

from __future__ import annotations

import click

from sage_local.fleet.down import down as stop_fleet
from sage_local.fleet.state_dir import StateDir
from sagectl.options.command import command


@command(examples=[("down", "stop all of them, running requests first")])
@click.pass_context
def down(ctx: click.Context) -> None:
    """Stop the scheduler and executors that `sagectl up` started.

    Waits until no process is left.
    """
    ctx.exit(stop_fleet(StateDir.default()))
