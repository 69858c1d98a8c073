"""Prints what an instance is after an operator's command."""

from __future__ import annotations

import click

from sage_client import Instance
from sagectl.output.formats import Output
from sagectl.output.not_kept import say_not_kept


def say_instance(instance: Instance, output: Output, *, why: bool = False) -> None:
    """Print its state; warn on stderr if the journal does not have the decision.

    ``why``: print the state's reason too, which tells an instance that wakes up from one that sleeps.
    """
    if not output.printed(instance, names=[instance.instance_id]):
        reason = f" ({instance.state_reason})" if why and instance.state_reason else ""
        click.echo(f"{instance.instance_id}: {instance.state.value}{reason}, {instance.assigned} requests in flight")
    if instance.decision is not None:
        say_not_kept(instance.decision.not_kept)
