"""``sagectl result``: prints the result of detached work."""

from __future__ import annotations

import click

from sage_client import Client, InvalidStateError
from sagectl.options.command import command
from sagectl.options.completion import complete_request
from sagectl.options.connecting import connecting
from sagectl.options.prefixes import with_request
from sagectl.output.events import choice_text
from sagectl.output.formats import Output


@command(
    short_help="Print the result of detached work.",
    examples=[
        ("result night-1", "its text, if it has ended"),
        ("result night-1 --wait --timeout 600", "wait up to ten minutes for its end"),
        ("result night-1 --json", "text, tokens, log probabilities and how it ended"),
    ],
)
@click.argument("request_id", shell_complete=complete_request)
@click.option("--wait", is_flag=True, help="Wait for its end; otherwise fail if it has not ended.")
@click.option("--timeout", type=float, metavar="SECONDS", help="Longest time to wait.")
@connecting
def result(client: Client, request_id: str, wait: bool, timeout: float | None, output: Output) -> None:
    """Print the output text of detached work that has ended; with --json everything that is kept of it.

    Of several choices (-n) the first is followed by the others, each under a line with its number.
    """
    status = with_request(client, request_id, client.get)
    request_id = status.request.request_id
    if status.request.ended_at is None and not wait:
        words = f"{request_id}: {status.request.state.value}; --wait waits for its end"
        raise InvalidStateError(words, request_id=request_id)
    done = client.attach(request_id, timeout=timeout).result()
    kept = {"request": client.get(request_id).request, "result": done}
    if not output.printed(kept, names=[request_id]):
        click.echo(done.text)
        for each in done.choices[1:]:
            click.echo(choice_text(each.index, each.text))
