"""``sagectl resume``: puts a drained instance back into service."""

from __future__ import annotations

import click

from sage_client import Client
from sagectl.options.command import command
from sagectl.options.completion import complete_instance
from sagectl.options.connecting import connecting
from sagectl.options.prefixes import with_instance
from sagectl.output.formats import Output
from sagectl.output.operated import say_instance


@command(
    examples=[
        ("resume executor-1", "take requests again"),
    ]
)
@click.argument("instance_id", shell_complete=complete_instance)
@connecting
def resume(client: Client, instance_id: str, output: Output) -> None:
    """Resume a drained instance: it gets new requests again."""
    say_instance(with_instance(client, instance_id, client.resume_instance), output)
