"""Runs a command on the place of a fleet."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

import sage_client as sage
from sagectl.exit_status import ExitStatus

if TYPE_CHECKING:
    from sage_fleet.places.place import Place
    from sage_fleet.specification.fleet import Fleet

Result = TypeVar("Result")

FILE = click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
PLACE = click.option(
    "--place",
    type=click.Choice(["local", "ray", "kubernetes"]),
    help="Where the fleet runs.  [default: as the file says, else local]",
)


def read(file: Path, place: str | None) -> Fleet:
    """Read a fleet's file.  Raises ConfigurationError, which names the field."""
    from sage_fleet.errors import SpecificationError
    from sage_fleet.specification.fleet_file import read_fleet

    try:
        fleet = read_fleet(file)
    except SpecificationError as error:
        raise sage.ConfigurationError(str(error)) from error
    return fleet if place is None else fleet.model_copy(update={"place": place})


def on_place(fleet: Fleet, work: Callable[[Place], Awaitable[Result]]) -> Result:
    """Run ``work`` with the fleet's place.  Prints why it cannot be done, and exits with 1."""
    from sage_fleet.errors import FleetError
    from sage_fleet.open_place import open_place

    async def opened() -> Result:
        place = open_place(fleet)
        try:
            return await work(place)
        finally:
            await place.close()

    try:
        return asyncio.run(opened())
    except FleetError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(ExitStatus.INTERNAL)
