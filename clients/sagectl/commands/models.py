"""``sagectl models``: lists the models that the fleet serves."""

from __future__ import annotations

import click

from sage_client import Client, Model
from sagectl.options.command import command
from sagectl.options.connecting import connecting
from sagectl.output.formats import Output
from sagectl.output.tables import Cells, show_table

COLUMNS = ("model", "task", "ready", "waiting", "tokens", "adapters", "revision")
_NUMBERS = ("ready", "waiting", "tokens")
_DROP = ("revision", "tokens", "adapters", "waiting")
"""The columns that a narrow terminal leaves out, the least important first."""


@command(examples=[("models", "every model of the fleet"), ("models -o name", "names only, for a script")])
@connecting
def models(client: Client, output: Output) -> None:
    """List the models that the fleet serves, and what each takes."""
    found = client.models()
    if output.printed(found, names=[each.name for each in found]):
        return
    if not found:
        click.echo("no models: no instance has registered")
    else:
        rows = [_row(each) for each in found]
        show_table("", COLUMNS, rows, right=_NUMBERS, whole=("model", *_NUMBERS), drop=_DROP, wide=output.wide)


def _row(model: Model) -> Cells:
    return [
        model.name,
        "classify" if model.classifies else "embed" if model.embeds else "generate",
        f"{model.ready}/{model.instances}",
        str(model.waiting),
        str(model.max_model_len or ""),
        ", ".join(model.adapters),
        ", ".join(model.revisions),
    ]
