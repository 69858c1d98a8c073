"""Prints what changes, and a fleet's executors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from sagectl.output.formats import Output
from sagectl.output.tables import show_table

if TYPE_CHECKING:
    from sage_fleet.fleet_view import FleetView
    from sage_fleet.places.changes import Change

COLUMNS = ("group", "executor", "state", "where", "restarts", "message")


def show_changes(found: Iterable[Change], *, to_stderr: bool) -> None:
    """Print a line for each change; one that says so if there is none."""
    lines = [f"{each.of}: {each.what}" for each in found] or ["nothing changes"]
    for line in lines:
        click.echo(line, err=to_stderr)


def show_fleet(view: FleetView, output: Output) -> None:
    """Print a fleet."""
    if output.printed(view, names=[each.name for each in view.executors]):
        return
    if not view.running:
        click.echo(f"{view.name}: does not run on {view.place}")
        return
    behind = f", behind {view.scheduler}" if view.scheduler else ""
    behind += f" and http://{view.gateway}/v1" if view.gateway else ""
    ready = sum(each.state == "ready" for each in view.executors)
    asleep = sum(each.state == "sleeping" for each in view.executors)
    rest = f", {asleep} asleep" if asleep else ""
    click.echo(f"{view.name} on {view.place}{behind}: {ready} of {sum(view.wanted.values())} executors ready{rest}")
    rows = [
        (each.group, each.name, each.state, each.where, str(each.restarts), each.message) for each in view.executors
    ]
    show_table("", COLUMNS, rows, right=("restarts",), whole=COLUMNS[:3], drop=("message",), wide=output.wide)
    for problem in view.problems:
        click.echo(f"problem: {problem}", err=True)
