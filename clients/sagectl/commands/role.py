"""``sagectl role``: changes an instance's role."""

from __future__ import annotations

import click

from sage_client import Client, InstanceRole
from sagectl.options.connecting import connecting
from sagectl.output.json_output import print_json
from sagectl.output.not_kept import say_not_kept

_ROLES = [role.value for role in InstanceRole if role is not InstanceRole.UNKNOWN]


@click.command()
@click.argument("instance_id")
@click.argument("new_role", metavar="ROLE", type=click.Choice(_ROLES, case_sensitive=False))
@connecting
def role(client: Client, instance_id: str, new_role: str, as_json: bool) -> None:
    """Change an instance's role while it runs."""
    instance = client.set_instance_role(instance_id, new_role)
    if as_json:
        print_json(instance)
    else:
        click.echo(f"{instance.instance_id}: {instance.role.value}")
    if instance.decision is not None:
        say_not_kept(instance.decision.not_kept)
