"""``sagectl result``: prints the result of detached work."""

from __future__ import annotations

import sys

import click

from sage_client import Client
from sagectl.exit_status import ExitStatus
from sagectl.options.connecting import connecting
from sagectl.output.json_output import print_json


@click.command(short_help="Print the result of detached work.")
@click.argument("request_id")
@click.option("--wait", is_flag=True, help="Wait for its end; otherwise fail if it has not ended.")
@click.option("--timeout", type=float, metavar="SECONDS", help="Longest time to wait.")
@connecting
def result(client: Client, request_id: str, wait: bool, timeout: float | None, as_json: bool) -> None:
    """Print the output text of detached work that has ended; with --json everything that is kept of it."""
    status = client.get(request_id)
    if status.request.ended_at is None and not wait:
        click.echo(f"{request_id}: {status.request.state.value}; --wait waits for its end", err=True)
        sys.exit(ExitStatus.CONFLICT)
    done = client.attach(request_id, timeout=timeout).result()
    if as_json:
        print_json({"request": client.get(request_id).request, "result": done})
    else:
        click.echo(done.text)
