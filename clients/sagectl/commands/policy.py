"""``sagectl policy``: shows and switches the scheduling policy."""

from __future__ import annotations

import click

from sage_client import Client, PolicyInfo, PolicyStatus
from sagectl.commands.policy_shadow import shadow
from sagectl.options.command import group
from sagectl.options.completion import complete_policy
from sagectl.options.connecting import connecting
from sagectl.output.durations import duration
from sagectl.output.formats import Output
from sagectl.output.not_kept import say_not_kept
from sagectl.output.tables import Cells, show_table


@group()
def policy() -> None:
    """Show or switch the scheduling policy."""


@policy.command(
    "get", examples=[("policy get", "the current policy, and all others"), ("policy get -o name", "its name only")]
)
@connecting
def get_policy(client: Client, output: Output) -> None:
    """Show the current policy, the available ones and the latest switches."""
    status = client.get_policy()
    if output.printed(status, names=[status.policy]):
        return
    decided = f", set by an operator; configured: {status.configured}" if status.decided else ""
    click.echo(f"current: {current_policy(status)}{decided}")
    say_not_kept(status.not_kept)
    available = [[each.name, each.summary] for each in status.available if not each.warning]
    show_table("policies", ["name", "what it does"], available, whole=["name"])
    compared = [_compared(each) for each in status.available if each.warning]
    columns = ["name", "what it does", "ignores"]
    show_table("for comparison, not for service", columns, compared, whole=["name"], drop=["ignores"], wide=output.wide)
    switches: list[Cells] = [
        [f"{duration(each.ago_s)} ago", each.from_policy, each.to_policy, each.reason] for each in status.switches
    ]
    show_table("latest switches", ["when", "from", "to", "reason"], switches)


def _compared(policy: PolicyInfo) -> Cells:
    """Return a row without the words that the table's title and columns say."""
    ignored = policy.warning.partition("it ignores ")[2] or policy.warning
    return [policy.name, policy.summary.removeprefix("for comparison: "), ignored]


@policy.command(
    "set",
    examples=[("policy set slo_aware --reason 'evening load'", "switch; requests that wait are ordered anew")],
)
@click.argument("name", shell_complete=complete_policy)
@click.option("--reason", default="set by sagectl", show_default=True, help="Reason to record.")
@connecting
def set_policy(client: Client, name: str, reason: str, output: Output) -> None:
    """Switch the scheduling policy; waiting requests are reordered."""
    change = client.set_policy(name, reason=reason)
    if output.printed(change, names=[change.policy]):
        pass
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
