"""``sagectl cancel``: cancels a request."""

from __future__ import annotations

import click

from sage_client import Cancellation, Client
from sagectl.options.command import command
from sagectl.options.completion import complete_request
from sagectl.options.connecting import connecting
from sagectl.options.prefixes import with_request
from sagectl.output.formats import Output


@command(
    examples=[
        ("cancel night-1", "end a request"),
        ("cancel req-f9f7 --reason 'wrong prompt'", "by the beginning of its id, with a reason for its record"),
    ]
)
@click.argument("request_id", shell_complete=complete_request)
@click.option("--reason", default="cancelled by sagectl", show_default=True, help="Reason to record.")
@connecting
def cancel(client: Client, request_id: str, reason: str, output: Output) -> None:
    """Cancel a request by its id, or the beginning of it."""

    def cancelled(whole_id: str) -> tuple[str, Cancellation]:
        return whole_id, client.cancel(whole_id, reason=reason)

    request_id, answer = with_request(client, request_id, cancelled)
    document = {"request_id": request_id, "cancelled": answer.cancelled, "state": answer.state}
    if output.printed(document, names=[request_id]):
        return
    if answer.cancelled:
        click.echo(f"{request_id}: cancelled")
    else:
        click.echo(f"{request_id}: already ended ({answer.state.value})")
