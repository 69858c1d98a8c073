"""``sagectl score``: prints how close texts are to a question."""

from __future__ import annotations

from typing import Any

import click

from sage_client import Client, EmbedOptions
from sagectl.options.command import command
from sagectl.options.completion import complete_model
from sagectl.options.connecting import connecting
from sagectl.options.generation import PRIORITY
from sagectl.output.formats import Output


@command(examples=[("score 'Which animal barks?' 'a cat' 'a dog'", "the closest text first")])
@click.argument("query")
@click.argument("texts", nargs=-1, required=True)
@click.option("--model", shell_complete=complete_model, help="Model name.  [default: the only one that embeds]")
@PRIORITY
@click.option("--deadline", type=float, metavar="SECONDS", help="Seconds after which the call expires.")
@click.option("--request-id", help="Id of the call.  [default: generated]")
@connecting
def score(client: Client, query: str, texts: tuple[str, ...], output: Output, **options: Any) -> None:
    """Print how close each text is to a question, by the cosine of their vectors."""
    given: EmbedOptions = {name: value for name, value in options.items() if value is not None}  # type: ignore[assignment]
    found = client.score(query, texts, **given)
    if output.printed(found, names=[found.request_id]):
        return
    for place in found.ranked():
        click.echo(f"{found[place]:7.4f}  {texts[place]}")
    click.echo(f"{found.usage.prompt_tokens} tokens by {found.model}", err=True)
