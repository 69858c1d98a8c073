"""``sagectl policy shadow``: a policy that decides beside the one in force, and how its choices compare."""

from __future__ import annotations

import click

from sage_client import Client, ShadowPolicy
from sagectl.options.command import command
from sagectl.options.completion import complete_policy
from sagectl.options.connecting import connecting
from sagectl.output.formats import Output
from sagectl.output.not_kept import say_not_kept
from sagectl.output.tables import show_table

OFF = "off"


@command(
    "shadow",
    examples=[
        ("policy shadow cost_optimized", "ask it beside the current policy; it places nothing"),
        ("policy shadow", "compare what both chose"),
        ("policy shadow off", "ask it no longer"),
    ],
)
@click.argument("name", required=False, shell_complete=complete_policy)
@connecting
def shadow(client: Client, name: str | None, output: Output) -> None:
    """Show the shadow policy, or let the policy NAME decide beside the current one; "off" ends that.

    The shadow policy places no request.  It is asked where it would place each request that the current policy places;
    which request goes next is not compared.
    """
    if name is None:
        _show(client.get_shadow_policy(), output)
        return
    change = client.set_shadow_policy("" if name == OFF else name)
    if not output.printed(change, names=[change.policy] if change.policy else ()):
        click.echo(f"shadow policy: {change.previous or OFF} -> {change.policy or OFF}")
    say_not_kept(change.not_kept)


def _show(found: ShadowPolicy | None, output: Output) -> None:
    if output.printed(found, names=[found.policy] if found is not None else ()):
        return
    if found is None:
        click.echo("shadow policy: off")
    else:
        _compare(found)


def _compare(found: ShadowPolicy) -> None:
    follows = f" (now {found.delegate})" if found.delegate else ""
    click.echo(f"shadow policy: {found.policy}{follows}, beside {found.in_force} for {found.age_s:.0f} s")
    if found.failure:
        click.echo(f"switched off, it failed: {found.failure}")
    left_out = f"; {found.not_compared} not compared" if found.not_compared else ""
    if not found.compared or found.chosen is None or found.shadow is None:
        click.echo(f"no decision compared yet{left_out}")
        return
    decisions = "1 decision" if found.compared == 1 else f"{found.compared} decisions"
    click.echo(f"{decisions} compared, {found.same / found.compared:.1%} to the same instance{left_out}")
    rows = [
        ["first token, s", *_row(found.chosen.first_token_s, found.shadow.first_token_s)],
        ["finish, s", *_row(found.chosen.finish_s, found.shadow.finish_s)],
        ["cost per request", *_row(found.chosen.cost, found.shadow.cost)],
    ]
    columns = ["", found.in_force, f"{found.policy} (shadow)", "change"]
    show_table("predicted, means over the compared decisions", columns, rows, right=columns[1:])


def _row(chosen: float, shadow: float) -> list[str]:
    change = f"{shadow / chosen - 1:+.1%}" if chosen else "-"
    return [f"{chosen:.4g}", f"{shadow:.4g}", change]
