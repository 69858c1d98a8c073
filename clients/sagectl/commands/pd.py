"""``sagectl pd``: shows and configures prefill/decode separation."""

from __future__ import annotations

import click

from sage_client import Client, PrefillDecodeConfig, SplitMode
from sagectl.options.connecting import connecting
from sagectl.output.json_output import print_json
from sagectl.output.not_kept import say_not_kept
from sagectl.output.tables import show_table
from sagectl.top.sections import pairs_by_state

_MODES = [mode.value for mode in SplitMode if mode is not SplitMode.UNKNOWN]


@click.group()
def pd() -> None:
    """Show or configure prefill/decode separation."""


@pd.command("get")
@connecting
def get_prefill_decode(client: Client, as_json: bool) -> None:
    """Show when requests are split, the instance pairs, and conditions that prevent it."""
    status = client.get_prefill_decode()
    if as_json:
        print_json(status)
        return
    _say(status.config)
    click.echo(f"{status.splits} split, {status.fallbacks} fallbacks")
    for condition in status.conditions:
        click.echo(f"condition: {condition}")
    shown, there = len(status.pairs), sum(status.pairs_by_state.values())
    click.echo(f"pairs: {pairs_by_state(status)}" + (f"; {shown:,} of {there:,} shown" if shown < there else ""))
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


@pd.command("set")
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
    as_json: bool,
) -> None:
    """Change when requests are split; settings that are not given stay unchanged."""
    config = client.set_prefill_decode(
        mode, threshold_input_tokens=threshold_input_tokens, threshold_ratio=threshold_ratio
    )
    if as_json:
        print_json(config)
    else:
        _say(config)
    say_not_kept(config.not_kept)


def _say(config: PrefillDecodeConfig) -> None:
    click.echo(
        f"split: {config.mode.value} (threshold: {config.threshold_input_tokens} input tokens,"
        f" or {config.threshold_ratio:g} times the predicted output)"
    )
