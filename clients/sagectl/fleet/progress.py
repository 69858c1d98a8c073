"""Prints how a fleet's executors go on while a change is applied."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import click

import sage_client as sage

if TYPE_CHECKING:
    from sage_fleet.fleet_view import FleetView
    from sage_fleet.places.place import Place
    from sage_fleet.specification.fleet import Fleet

PERIOD_S = 0.5


@asynccontextmanager
async def progress_lines(fleet: Fleet, place: Place) -> AsyncIterator[None]:
    """Print a line on stderr for each executor whose state changes, while the block runs."""
    following = asyncio.create_task(_follow(fleet, place), name="progress")
    try:
        yield
    finally:
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following


async def _follow(fleet: Fleet, place: Place) -> None:
    from sage_fleet.errors import FleetError
    from sage_fleet.fleet_view import view_of

    said: dict[str, str] = {}
    while True:
        with contextlib.suppress(FleetError, sage.SageError):  # what applies says what is wrong
            _say(await view_of(fleet, place), said)
        await asyncio.sleep(PERIOD_S)


def _say(view: FleetView, said: dict[str, str]) -> None:
    states = {each.name: each.state for each in view.executors}
    for name in said.keys() - states.keys():
        click.echo(f"{name}: has ended", err=True)
        del said[name]
    for name, state in states.items():
        if said.get(name) != state:
            click.echo(f"{name}: {state}", err=True)
            said[name] = state
