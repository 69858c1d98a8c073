"""``sagectl adapter``: adds and removes LoRA adapters while engines run."""

from __future__ import annotations

from collections.abc import Iterator

import click

from sage_client import Adapter, AdapterState, Client
from sagectl.options.command import group
from sagectl.options.connecting import connecting
from sagectl.output.formats import Output
from sagectl.output.not_kept import say_not_kept
from sagectl.output.tables import Cells, show_table

COLUMNS = ("adapter", "model", "requests", "instance", "state", "rank", "reason", "source")
_NUMBERS = ("requests", "rank")
_DROP = ("source", "rank", "requests", "model")
"""The columns that a narrow terminal leaves out, the least important first."""


@group()
def adapter() -> None:
    """Add, list or remove LoRA adapters while engines run (docs/adapters.md)."""


@adapter.command(
    "add",
    examples=[
        ("adapter add legal /models/legal", "from a directory that every executor has"),
        ("adapter add legal org/legal-lora --revision v2 --model llama", "from the hub, for one of several models"),
    ],
)
@click.argument("name")
@click.argument("source")
@click.option("--model", default="", help="Model that it adapts.  [default: the only one]")
@click.option("--revision", default="", help="Branch, tag or commit of the hub.")
@click.option(
    "--max-rank", type=click.IntRange(min=0), default=0, help="Refuse a larger rank.  [default: the engine's]"
)
@connecting
def add(client: Client, name: str, source: str, model: str, revision: str, max_rank: int, output: Output) -> None:
    """Have every instance of the model load the adapter NAME from SOURCE, a directory or a hub id.

    Requests may name it at once and wait until it is loaded.  Where loading failed, it is tried again.
    """
    found = client.add_adapter(name, source, model=model, revision=revision, max_rank=max_rank)
    if not output.printed(found, names=[found.name]):
        click.echo(f"{found.name}: added to {found.model}; {_summary(found)}")
    say_not_kept(found.not_kept)


@adapter.command("list", examples=[("adapter list", "every adapter, and what each instance has of it")])
@click.option("--model", default="", help="Only of this model.")
@connecting
def list_adapters(client: Client, model: str, output: Output) -> None:
    """List the adapters that were added, and what each instance has of them."""
    found = client.list_adapters(model=model)
    if output.printed(found, names=[each.name for each in found]):
        return
    if not found:
        click.echo("no adapters were added; those that engines have from their start: sagectl models")
        return
    rows = [row for each in found for row in _rows(each)]
    show_table("", COLUMNS, rows, right=_NUMBERS, whole=("adapter", "state"), drop=_DROP, wide=output.wide)


@adapter.command("remove", examples=[("adapter remove legal", "running requests end first, new ones are refused")])
@click.argument("name")
@click.option("--model", default="", help="Model that it adapts.  [default: the only one]")
@connecting
def remove(client: Client, name: str, model: str, output: Output) -> None:
    """Take the adapter NAME out: accepted requests end first, new ones are refused."""
    found = client.remove_adapter(name, model=model)
    if not output.printed(found, names=[found.name]):
        waits = f"; it is unloaded when {found.requests} requests have ended" if found.requests else ""
        click.echo(f"{found.name}: removed from {found.model}{waits}")
    say_not_kept(found.not_kept)


def _summary(found: Adapter) -> str:
    """Say how many instances have which state: "1 loaded, 2 loading"."""
    states = [each.state.value for each in found.instances]
    counts = (f"{states.count(state.value)} {state.value}" for state in AdapterState if state.value in states)
    return ", ".join(counts) or "no instance is registered"


def _rows(found: Adapter) -> Iterator[Cells]:
    name = f"{found.name} (removing)" if found.removing else found.name
    source = f"{found.source} {found.revision}".strip()
    if not found.instances:
        yield [name, found.model, str(found.requests), "", "", "", "no instance is registered", source]
    for each in found.instances:
        rank = str(each.rank or "")
        yield [name, found.model, str(found.requests), each.instance_id, each.state.value, rank, each.reason, source]
