"""``sagectl policy``: shows and switches the scheduling policy."""

from __future__ import annotations

import click

from sage_client import Client, PolicyStatus
from sagectl.commands.policy_shadow import shadow
from sagectl.options.connecting import connecting
from sagectl.output.json_output import print_json
from sagectl.output.not_kept import say_not_kept
from sagectl.output.tables import Cells, show_table


@click.group()
def policy() -> None:
    """Show or switch the scheduling policy."""


@policy.command("get")
@connecting
def get_policy(client: Client, as_json: bool) -> None:
    """Show the current policy, the available ones and the latest switches."""
    status = client.get_policy()
    if as_json:
        print_json(status)
        return
    decided = f", set by an operator; configured: {status.configured}" if status.decided else ""
    click.echo(f"current: {current_policy(status)}{decided}")
    say_not_kept(status.not_kept)
    available = [[each.name, each.summary] for each in status.available if not each.warning]
    show_table("policies", ["name", "what it does"], available)
    compared: list[Cells] = [[each.name, each.summary, each.warning] for each in status.available if each.warning]
    show_table("policies with a warning", ["name", "what it does", "warning"], compared)
    switches: list[Cells] = [
        [f"{each.ago_s:.0f} s ago", each.from_policy, each.to_policy, each.reason] for each in status.switches
    ]
    show_table("latest switches", ["when", "from", "to", "reason"], switches)


@policy.command("set")
@click.argument("name")
@click.option("--reason", default="set by sagectl", show_default=True, help="Reason to record.")
@connecting
def set_policy(client: Client, name: str, reason: str, as_json: bool) -> None:
    """Switch the scheduling policy; waiting requests are reordered."""
    change = client.set_policy(name, reason=reason)
    if as_json:
        print_json(change)
    elif change.policy == change.previous:
        click.echo(f"{change.policy} is already the current policy")
    else:
        click.echo(f"{change.previous} -> {change.policy}; {change.reordered} waiting requests reordered")
    if change.warning:
        click.echo(f"warning: {change.warning}", err=True)
    say_not_kept(change.not_kept)


policy.add_command(shadow)


def current_policy(status: PolicyStatus) -> str:
    """Return the current policy's name, with the one that ``adaptive`` follows now."""
    return f"{status.policy} (now {status.delegate})" if status.delegate else status.policy
