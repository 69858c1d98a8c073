"""``sagectl status``: shows the processes that ``sagectl up`` started."""

from __future__ import annotations

import click

from sage_local.fleet.state_dir import StateDir
from sage_local.fleet.status_report import report_status


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """Show the processes that `sagectl up` started.

    Exit status: 0 if all are running and READY, 1 if one is not, 3 if nothing was started.
    """
    ctx.exit(report_status(StateDir.default(), as_json=as_json))
