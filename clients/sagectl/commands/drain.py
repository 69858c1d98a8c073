"""``sagectl drain``: takes an instance out of service."""

from __future__ import annotations

import click

from sage_client import Client, Instance
from sagectl.options.command import command
from sagectl.options.completion import complete_instance
from sagectl.options.connecting import connecting
from sagectl.options.prefixes import with_instance
from sagectl.output.formats import Output
from sagectl.output.operated import say_instance


@command(
    examples=[
        ("drain executor-1", "finish its requests, take no new ones"),
        ("drain executor-1 --reason 'new driver'", "with a reason for whoever looks"),
    ]
)
@click.argument("instance_id", shell_complete=complete_instance)
@click.option("--reason", default="drained by sagectl", show_default=True, help="Reason to record.")
@connecting
def drain(client: Client, instance_id: str, reason: str, output: Output) -> None:
    """Drain an instance: it finishes its requests and gets no new ones."""

    def drained(whole_id: str) -> Instance:
        return client.drain_instance(whole_id, reason=reason)

    say_instance(with_instance(client, instance_id, drained), output)
