"""``sagectl submit``: submits detached work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from sage_client import Client
from sagectl.options.command import command
from sagectl.options.connecting import connecting
from sagectl.options.generation import generation_options
from sagectl.options.prompt import what_from
from sagectl.output.events import narrate
from sagectl.output.formats import Output

_NOT_FOR_SUBMIT = {"after_token", "detached"}


def _without(names: set[str]) -> Callable[[click.Command], click.Command]:
    def trimmed(command: click.Command) -> click.Command:
        command.params = [param for param in command.params if param.name not in names]
        return command

    return trimmed


@_without(_NOT_FOR_SUBMIT)
@command(
    short_help="Submit detached work and print its id.",
    examples=[
        ("submit - --priority background --request-id night-1 < prompt.txt", "needs no client from here on"),
        ("submit 'Once upon a time' --max-tokens 2000 --keep-result 3600", "keep the result an hour"),
    ],
)
@click.argument("prompt", required=False)
@generation_options
@click.option("--keep-result", type=float, metavar="SECONDS", help="Seconds to keep the result after the end.")
@connecting
def submit(
    client: Client,
    prompt: str | None,
    chat: bool,
    system: str | None,
    keep_result: float | None,
    output: Output,
    **options: Any,
) -> None:
    """Submit a request that needs no client, and print its id.

    It goes on whatever happens to this command or to the scheduler, and its result is kept: see sagectl requests and
    sagectl result.  The same id and content again give the same request.  With - or without PROMPT the prompt is read
    from stdin.
    """
    what: Any = what_from(client, prompt, chat or system is not None, system, options)
    accepted = client.submit(**what, keep_result=keep_result).accepted
    if not output.printed(accepted, names=[accepted.request_id]):
        click.echo(accepted.request_id)
        click.echo(narrate(accepted), err=True)
