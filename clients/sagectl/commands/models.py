"""``sagectl models``: lists the models that the fleet serves."""

from __future__ import annotations

import click

from sage_client import Client, Model
from sagectl.options.connecting import connecting
from sagectl.output.json_output import print_json
from sagectl.output.tables import Cells, show_table

COLUMNS = ("model", "task", "ready", "waiting", "tokens", "adapters", "revision")
_NUMBERS = ("ready", "waiting", "tokens")
_DROP = ("revision", "tokens", "adapters", "waiting")
"""The columns that a narrow terminal leaves out, the least important first."""


@click.command()
@connecting
def models(client: Client, as_json: bool) -> None:
    """List the models that the fleet serves, and what each takes."""
    found = client.models()
    if as_json:
        print_json(found)
    elif not found:
        click.echo("no models: no instance has registered")
    else:
        rows = [_row(each) for each in found]
        show_table("models", COLUMNS, rows, right=_NUMBERS, whole=("model", *_NUMBERS), drop=_DROP)


def _row(model: Model) -> Cells:
    return [
        model.name,
        "embed" if model.embeds else "generate",
        f"{model.ready} of {model.instances}",
        str(model.waiting),
        str(model.max_model_len or ""),
        ", ".join(model.adapters),
        ", ".join(model.revisions),
    ]
