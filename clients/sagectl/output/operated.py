"""Prints what an instance is after an operator's command."""

from __future__ import annotations

import click

from sage_client import Instance
from sagectl.output.json_output import print_json
from sagectl.output.not_kept import say_not_kept


def say_instance(instance: Instance, as_json: bool) -> None:
    """Print its state; warn on stderr if the journal does not have the decision."""
    if as_json:
        print_json(instance)
    else:
        click.echo(f"{instance.instance_id}: {instance.state.value}, {instance.assigned} requests in flight")
    if instance.decision is not None:
        say_not_kept(instance.decision.not_kept)
