"""``sagectl sleep``: puts an instance to sleep."""

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
        ("sleep executor-1", "finish its requests, then leave its GPU's memory to others"),
    ]
)
@click.argument("instance_id", shell_complete=complete_instance)
@click.option("--reason", default="ordered by sagectl", show_default=True, help="Reason to record.")
@connecting
def sleep(client: Client, instance_id: str, reason: str, output: Output) -> None:
    """Put an instance to sleep: it finishes its requests, then others have its GPU's memory."""

    def ordered(whole_id: str) -> Instance:
        return client.sleep_instance(whole_id, reason=reason)

    say_instance(with_instance(client, instance_id, ordered), output, why=True)
