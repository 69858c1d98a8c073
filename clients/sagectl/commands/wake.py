"""``sagectl wake``: wakes an instance that sleeps."""

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
        ("wake executor-1", "bring its weights back to the GPU"),
    ]
)
@click.argument("instance_id", shell_complete=complete_instance)
@connecting
def wake(client: Client, instance_id: str, output: Output) -> None:
    """Wake an instance that sleeps."""
    say_instance(with_instance(client, instance_id, client.wake_instance), output, why=True)
