"""``sagectl embed``: prints the vectors of texts."""

from __future__ import annotations

import json
from typing import Any

import click

from sage_client import Client, Embeddings, EmbedOptions
from sagectl.options.connecting import connecting
from sagectl.output.json_output import print_json

NUMBERS_SHOWN = 6


@click.command(epilog="\b\nExample:\n  sagectl embed 'a cat' 'a dog' --model embedder --json | jq '.embeddings[0]'")
@click.argument("texts", nargs=-1, required=True)
@click.option("--model", default=None, help="Model to ask.  Default: the only one of the fleet.")
@click.option("--dimensions", type=click.IntRange(min=1), default=None, help="Length of each vector.")
@click.option("--normalize", is_flag=True, default=None, help="Scale each vector to length 1.")
@click.option("--priority", default=None, help="Class: critical, high, normal, low or background.")
@click.option("--deadline", type=float, default=None, help="Seconds after which the call expires.")
@click.option("--request-id", default=None, help="Id of the call.  Default: a random one.")
@connecting
def embed(client: Client, texts: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Print the vector of each text."""
    given: EmbedOptions = {name: value for name, value in options.items() if value is not None}  # type: ignore[assignment]
    found = client.embed(texts, **given)
    if as_json:
        print_json(_plain(found), indent=None)
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
