"""``sagectl cancel``: cancels a request."""

from __future__ import annotations

import click

from sage_client import Client
from sagectl.options.connecting import connecting
from sagectl.output.json_output import print_json


@click.command()
@click.argument("request_id")
@click.option("--reason", default="cancelled by sagectl", show_default=True, help="Reason to record.")
@connecting
def cancel(client: Client, request_id: str, reason: str, as_json: bool) -> None:
    """Cancel a request."""
    answer = client.cancel(request_id, reason=reason)
    if as_json:
        print_json({"request_id": request_id, "cancelled": answer.cancelled, "state": answer.state})
    elif answer.cancelled:
        click.echo(f"{request_id}: cancelled")
    else:
        click.echo(f"{request_id}: already ended ({answer.state.value})")
