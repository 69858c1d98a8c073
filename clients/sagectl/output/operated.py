"""Prints what an instance is after an operator's command."""

from __future__ import annotations

import click

from sage_client import Instance
from sagectl.output.formats import Output
from sagectl.output.not_kept import say_not_kept


def say_instance(instance: Instance, output: Output) -> None:
    """Print its state; warn on stderr if the journal does not have the decision."""
    if not output.printed(instance, names=[instance.instance_id]):
        click.echo(f"{instance.instance_id}: {instance.state.value}, {instance.assigned} requests in flight")
    if instance.decision is not None:
        say_not_kept(instance.decision.not_kept)
