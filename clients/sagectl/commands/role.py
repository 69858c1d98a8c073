"""``sagectl role``: changes an instance's role."""

from __future__ import annotations

import click

from sage_client import Client, Instance, InstanceRole
from sagectl.options.command import command
from sagectl.options.completion import complete_instance
from sagectl.options.connecting import connecting
from sagectl.options.prefixes import with_instance
from sagectl.output.formats import Output
from sagectl.output.not_kept import say_not_kept
from sagectl.output.split_warning import say_unsplit

_OF_SPLITS = (InstanceRole.PREFILLING, InstanceRole.DECODING, InstanceRole.HYBRID)
_ROLES = [role.value for role in InstanceRole if role is not InstanceRole.UNKNOWN]


@command(
    examples=[
        ("role executor-1 prefilling", "only prefill, from now on"),
        ("role executor-1 general", "whole requests, as at first"),
    ]
)
@click.argument("instance_id", shell_complete=complete_instance)
@click.argument("new_role", metavar="ROLE", type=click.Choice(_ROLES, case_sensitive=False))
@connecting
def role(client: Client, instance_id: str, new_role: str, output: Output) -> None:
    """Change an instance's role while it runs."""

    def set_to(whole_id: str) -> Instance:
        return client.set_instance_role(whole_id, new_role)

    instance = with_instance(client, instance_id, set_to)
    if not output.printed(instance, names=[instance.instance_id]):
        click.echo(f"{instance.instance_id}: {instance.role.value}")
    if instance.decision is not None:
        say_not_kept(instance.decision.not_kept)
    if instance.role in _OF_SPLITS:
        say_unsplit(client)
