"""``sagectl cancel``."""

from __future__ import annotations

import click

from sage_client import Client
from sagectl.connecting import connecting
from sagectl.json_output import print_json


@click.command()
@click.argument("request_id")
@click.option("--reason", default="cancelled by sagectl", show_default=True, help="For the record.")
@connecting
def cancel(client: Client, request_id: str, reason: str, as_json: bool) -> None:
    """Ends a request early."""
    answer = client.cancel(request_id, reason=reason)
    if as_json:
        print_json({"request_id": request_id, "cancelled": answer.cancelled, "state": answer.state})
    elif answer.cancelled:
        click.echo(f"{request_id}: cancelled")
    else:
        click.echo(f"{request_id}: had already ended ({answer.state.value})")
