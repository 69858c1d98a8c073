"""``sagectl fleet``: one description of a fleet, run on this machine, on Ray or on Kubernetes."""

from __future__ import annotations

import logging
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

import sage_client as sage
from sagectl.exit_status import ExitStatus
from sagectl.fleet.opened import FILE, PLACE, on_place, read
from sagectl.fleet.progress import progress_lines
from sagectl.fleet.shown import show_changes, show_fleet
from sagectl.options.command import group
from sagectl.options.connecting import with_output
from sagectl.output.formats import Output

if TYPE_CHECKING:
    from sage_fleet.fleet_view import FleetView
    from sage_fleet.places.place import Place

NOT_RUNNING = 3


@group(
    examples=[
        ("fleet apply fleet.yaml", "start what the file describes, or change what differs"),
        ("fleet status fleet.yaml", "its executors"),
    ]
)
def fleet() -> None:
    """Run a fleet that a file describes, on this machine, on Ray or on Kubernetes.

    docs/fleet.md has the fields of the file.
    """


@fleet.command(
    "apply",
    examples=[
        ("fleet apply fleet.yaml", "start it, or change what differs"),
        ("fleet apply fleet.yaml --dry-run", "only say what would change"),
    ],
)
@FILE
@PLACE
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@with_output
def apply(file: Path, place: str | None, dry_run: bool, output: Output) -> None:
    """Make the place run what FILE describes, and change only what differs.

    Prints what changes first, and returns when all executors are READY.  Executors that are too many, or were started
    with other settings, finish their requests before they end.
    """
    from sage_fleet.fleet_view import view_of
    from sage_fleet.places.changes import changes

    described = read(file, place)

    async def work(at: Place) -> FleetView | None:
        found = changes(described, await at.status())
        show_changes(found, to_stderr=not output.for_people)
        if dry_run:
            return None
        async with progress_lines(described, at):
            await at.apply(described)
        return await view_of(described, at)

    view = on_place(described, work)
    if view is not None:
        show_fleet(view, output)


@fleet.command(
    "status",
    examples=[("fleet status fleet.yaml", "its executors"), ("fleet status fleet.yaml --json", "for programs")],
)
@FILE
@PLACE
@with_output
def status(file: Path, place: str | None, output: Output) -> None:
    """Print a fleet's executors.

    Exit status: 0 if every group has as many READY executors as it is to have, 1 if not, 3 if the fleet does not run.
    """
    from sage_fleet.fleet_view import view_of

    described = read(file, place)
    view = on_place(described, lambda at: view_of(described, at))
    show_fleet(view, output)
    if not view.running:
        sys.exit(NOT_RUNNING)
    sys.exit(ExitStatus.OK if view.ready else ExitStatus.INTERNAL)


@fleet.command("scale", examples=[("fleet scale fleet.yaml chat 4", "four executors of the group chat")])
@FILE
@click.argument("group_name", metavar="GROUP")
@click.argument("count", type=click.IntRange(0))
@PLACE
@with_output
def scale(file: Path, group_name: str, count: int, place: str | None, output: Output) -> None:
    """Give a group another number of executors, until the next `apply`.

    Returns at once: new executors start and those that are too many drain meanwhile.  The number of a group with min
    and max follows the load again soon.
    """
    from sage_fleet.fleet_view import view_of
    from sage_fleet.places.changes import counted

    described = read(file, place)

    async def work(at: Place) -> tuple[int | None, FleetView]:
        known = (await at.status()).groups.get(group_name)
        await at.scale(group_name, count)
        return known.wanted if known is not None else None, await view_of(described, at)

    before, view = on_place(described, work)
    click.echo(f"{group_name}: {counted(count)} instead of {before}", err=not output.for_people)
    if not output.for_people:
        show_fleet(view, output)


@fleet.command(
    "render",
    examples=[("fleet render fleet.yaml --to overlay", "then: kubectl apply -k overlay")],
)
@FILE
@click.option(
    "--to", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to write, new or empty."
)
def render(file: Path, to: Path) -> None:
    """Write Kubernetes manifests of a fleet: an overlay, and ours that it stands on.

    A folder that has an overlay already is written again.
    """
    from sage_fleet.errors import FleetError
    from sage_fleet.kubernetes_place.overlay import write_overlay

    try:
        write_overlay(read(file, "kubernetes"), to)
    except FleetError as error:
        raise sage.ConfigurationError(str(error)) from error
    click.echo(f"{to}: apply it with: kubectl apply -k {shlex.quote(str(to))}")


@fleet.command("delete", examples=[("fleet delete fleet.yaml", "drain and end everything")])
@FILE
@PLACE
@with_output
def delete(file: Path, place: str | None, output: Output) -> None:
    """Drain and end the scheduler, the gateway and all executors.

    Returns when all have ended; executors get `drain_timeout_s` for what they run.
    """
    from sage_fleet.fleet_view import view_of

    described = read(file, place)

    async def work(at: Place) -> tuple[bool, FleetView]:
        ran = (await at.status()).running
        await at.delete()
        return ran, await view_of(described, at)

    ran, view = on_place(described, work)
    if ran and not view.running and output.for_people:
        click.echo(f"{described.name}: deleted from {described.place}")
    else:
        show_fleet(view, output)


@fleet.command("run", examples=[("fleet run fleet.yaml", "follow the load, until Ctrl-C")])
@FILE
@PLACE
@click.option(
    "--scheduler", metavar="HOST:PORT", help="Where the scheduler is reached from here.  [default: as the place says]"
)
def run(file: Path, place: str | None, scheduler: str | None) -> None:
    """Give groups with min and max as many executors as the scheduler says are needed, until a signal arrives.

    A fleet on this machine does so by itself; on Ray and Kubernetes this command does.  `apply` has to come first.
    """
    from sage_common.clock import AsyncioClock
    from sage_fleet.controller.controller import Controller
    from sage_fleet.errors import FleetError
    from sage_fleet.scheduler_client import client_of, desired_of

    described = read(file, place)
    if described.place == "local":
        raise click.UsageError("a fleet on this machine follows the load by itself")

    async def work(at: Place) -> None:
        addresses = scheduler or (await at.status()).scheduler
        if not addresses:
            raise FleetError(
                "the scheduler cannot be reached from here: give --scheduler, of a port-forward or a service"
            )
        async with client_of(described, addresses) as client:
            controller = Controller(lambda: described, at, lambda: desired_of(client), AsyncioClock(), client)
            await controller.run()

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    on_place(described, work)
