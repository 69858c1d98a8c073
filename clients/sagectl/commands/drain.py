"""``sagectl drain``: takes an instance out of service."""

from __future__ import annotations

import click

from sage_client import Client
from sagectl.options.connecting import connecting
from sagectl.output.operated import say_instance


@click.command()
@click.argument("instance_id")
@click.option("--reason", default="drained by sagectl", show_default=True, help="Reason to record.")
@connecting
def drain(client: Client, instance_id: str, reason: str, as_json: bool) -> None:
    """Drain an instance: it finishes its requests and gets no new ones."""
    say_instance(client.drain_instance(instance_id, reason=reason), as_json)
