"""``sagectl status``: shows the processes that ``sagectl up`` started."""

from __future__ import annotations

import click

from sage_local.fleet.state_dir import StateDir
from sage_local.fleet.status_report import report_status
from sagectl.options.command import command
from sagectl.options.connecting import with_output
from sagectl.output.formats import Output


@command(examples=[("status", "what runs on this machine"), ("status && echo ready", "its exit status says it, too")])
@with_output
@click.pass_context
def status(ctx: click.Context, output: Output) -> None:
    """Show the processes that `sagectl up` started.

    Exit status: 0 if all are running and READY, 1 if one is not, 3 if nothing was started.
    """
    report = report_status(StateDir.default())
    if not output.printed(report.document, names=report.processes):
        for line in report.lines:
            click.echo(line)
    ctx.exit(report.exit_status)
