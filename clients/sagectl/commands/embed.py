"""``sagectl embed``: prints the vectors of texts."""

from __future__ import annotations

import json
from typing import Any

import click

from sage_client import Client, Embeddings, EmbedOptions
from sagectl.options.command import command
from sagectl.options.completion import complete_model
from sagectl.options.connecting import connecting
from sagectl.options.generation import PRIORITY
from sagectl.output.formats import Output

NUMBERS_SHOWN = 6


@command(
    examples=[
        ("embed 'a cat' 'a dog'", "the first numbers of each vector"),
        ("embed 'a cat' --model embedder --normalize --json", "whole vectors of length 1, for a program"),
    ]
)
@click.argument("texts", nargs=-1, required=True)
@click.option("--model", shell_complete=complete_model, help="Model name.  [default: the only one that embeds]")
@click.option("--dimensions", type=click.IntRange(min=1), default=None, help="Length of each vector.")
@click.option("--normalize", is_flag=True, default=None, help="Scale each vector to length 1.")
@PRIORITY
@click.option("--deadline", type=float, metavar="SECONDS", help="Seconds after which the call expires.")
@click.option("--request-id", help="Id of the call.  [default: generated]")
@connecting
def embed(client: Client, texts: tuple[str, ...], output: Output, **options: Any) -> None:
    """Print the vector of each text."""
    given: EmbedOptions = {name: value for name, value in options.items() if value is not None}  # type: ignore[assignment]
    found = client.embed(texts, **given)
    if output.printed(_plain(found), names=[found.request_id]):
        return
    for text, vector in zip(texts, found, strict=True):
        shown = ", ".join(f"{value:.4f}" for value in vector[:NUMBERS_SHOWN])
        more = ", …" if len(vector) > NUMBERS_SHOWN else ""
        click.echo(f"{json.dumps(text, ensure_ascii=False)}: {len(vector)} numbers: {shown}{more}")
    click.echo(f"{found.usage.prompt_tokens} tokens by {found.model}", err=True)


def _plain(found: Embeddings) -> dict[str, object]:
    return {
        "request_id": found.request_id,
        "model": found.model,
        "embeddings": [list(vector) for vector in found],
        "prompt_tokens": found.usage.prompt_tokens,
        "cost": found.cost,
    }
