"""``sagectl scaling``: shows how many instances there are to be."""

from __future__ import annotations

import click

from sage_client import Client, DesiredInstances
from sagectl.options.command import command
from sagectl.options.completion import complete_model
from sagectl.options.connecting import connecting
from sagectl.output.formats import Output
from sagectl.output.tables import Cells, show_table

COLUMNS = ("model", "role", "desired", "ready", "starting", "bounds", "load", "forecast", "warm-up", "price/h", "why")
_NUMBERS = ("desired", "ready", "starting", "load", "forecast", "warm-up", "price/h")
_WHOLE = ("model", "role", *_NUMBERS)
_DROP = ("price/h", "warm-up", "bounds", "load", "forecast", "starting", "why")
"""The columns that a narrow terminal leaves out, the least important first."""


@command(
    examples=[
        ("scaling", "how many instances each model is to have, and why"),
        ("scaling llama -o json", "one model, for a script"),
    ]
)
@click.argument("model", default="", shell_complete=complete_model)
@connecting
def scaling(client: Client, model: str, output: Output) -> None:
    """Show how many instances each model is to have."""
    fleet = client.desired_instances(model=model)
    if output.printed(fleet, names=[f"{each.model}/{each.role.value}" for each in fleet.desired]):
        return
    if not fleet.enabled:
        click.echo("off: the scheduler's setting scaling.enabled is false")
        return
    rows = [_row(each) for each in fleet.desired]
    show_table("", COLUMNS, rows, right=_NUMBERS, whole=_WHOLE, drop=_DROP, wide=output.wide)
    if not rows:
        click.echo("no model has instances or bounds")


def _row(desired: DesiredInstances) -> Cells:
    return [
        desired.model,
        desired.role.value,
        str(desired.desired),
        str(desired.ready),
        str(desired.starting),
        f"{desired.min}-{desired.max}",
        f"{desired.load:.2f}",
        f"{desired.forecast:.2f}",
        f"{desired.warm_up_s:.0f} s",
        f"{desired.price_per_hour:g}",
        desired.reason,
    ]
