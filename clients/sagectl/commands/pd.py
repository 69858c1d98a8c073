"""``sagectl pd``: shows and configures prefill/decode separation."""

from __future__ import annotations

import click

from sage_client import Client, PrefillDecodeConfig, PrefillDecodeStatus, SplitMode
from sagectl.options.command import group
from sagectl.options.connecting import connecting
from sagectl.output.durations import duration
from sagectl.output.formats import Output
from sagectl.output.not_kept import say_not_kept
from sagectl.output.split_warning import say_unsplit
from sagectl.output.tables import show_table
from sagectl.top.sections import pairs_by_state

_NUMBERS_OF_SIDES = ["ready", "starting", "pressure"]
_MODES = [mode.value for mode in SplitMode if mode is not SplitMode.UNKNOWN]


@group()
def pd() -> None:
    """Show or configure prefill/decode separation."""


@pd.command("get", examples=[("pd get", "the settings, the pairs, and what prevents splitting")])
@connecting
def get_prefill_decode(client: Client, output: Output) -> None:
    """Show when requests are split, and what prevents it.

    Also the pairs of instances, and how many requests were split so far.
    """
    status = client.get_prefill_decode()
    if output.printed(status, names=[status.config.mode.value]):
        return
    _say(status.config)
    click.echo(f"{status.splits} split, {status.fallbacks} fallbacks")
    for condition in status.conditions:
        click.echo(f"condition: {condition}")
    shown, there = len(status.pairs), sum(status.pairs_by_state.values())
    click.echo(f"pairs: {pairs_by_state(status)}" + (f"; {shown:,} of {there:,} shown" if shown < there else ""))
    show_roles(status)
    pairs = [
        [
            each.prefill_instance_id,
            each.decode_instance_id,
            each.model,
            each.state.value,
            "" if each.handoff_s is None else f"{each.handoff_s:.3f} s",
            each.reason,
        ]
        for each in status.pairs
    ]
    show_table("pairs", ["prefill", "decode", "model", "state", "handoff", "why"], pairs, right=["handoff"])


@pd.command(
    "set",
    examples=[
        ("pd set threshold --threshold-input-tokens 1024", "split requests with long prompts"),
        ("pd set never", "run every request whole"),
    ],
)
@click.argument("mode", type=click.Choice(_MODES), required=False)
@click.option("--threshold-input-tokens", type=int, help="Split requests whose prompt has at least this many tokens.")
@click.option(
    "--threshold-ratio", type=float, help="Split requests whose prompt has this many times the predicted output tokens."
)
@connecting
def set_prefill_decode(
    client: Client,
    mode: str | None,
    threshold_input_tokens: int | None,
    threshold_ratio: float | None,
    output: Output,
) -> None:
    """Change when requests are split.

    Settings that are not given stay unchanged.
    """
    config = client.set_prefill_decode(
        mode, threshold_input_tokens=threshold_input_tokens, threshold_ratio=threshold_ratio
    )
    if not output.printed(config, names=[config.mode.value]):
        _say(config)
    say_not_kept(config.not_kept)
    if config.mode is not SplitMode.NEVER:
        say_unsplit(client)


def show_roles(status: PrefillDecodeStatus) -> None:
    """Print the pressures of both sides and the latest changes; nothing where roles are not automatic."""
    if not status.automatic_roles:
        return
    sides = [
        [each.model, each.role.value, str(each.ready), str(each.starting), f"{each.pressure:.2f}", each.reason]
        for each in status.sides
    ]
    show_table(
        "automatic roles", ["model", "role", "ready", "starting", "pressure", "why"], sides, right=_NUMBERS_OF_SIDES
    )
    changes = [
        [f"{duration(each.age_s)} ago", each.instance_id, each.model, each.previous.value, each.role.value, each.reason]
        for each in status.role_changes
    ]
    show_table("roles that changed", ["when", "instance", "model", "from", "to", "why"], changes)


def _say(config: PrefillDecodeConfig) -> None:
    click.echo(
        f"split: {config.mode.value} (threshold: {config.threshold_input_tokens} input tokens,"
        f" or {config.threshold_ratio:g} times the predicted output)"
    )
