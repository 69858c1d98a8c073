"""``sagectl resume``: puts a drained instance back into service."""

from __future__ import annotations

import click

from sage_client import Client
from sagectl.options.connecting import connecting
from sagectl.output.operated import say_instance


@click.command()
@click.argument("instance_id")
@connecting
def resume(client: Client, instance_id: str, as_json: bool) -> None:
    """Resume a drained instance: it gets new requests again."""
    say_instance(client.resume_instance(instance_id), as_json)
