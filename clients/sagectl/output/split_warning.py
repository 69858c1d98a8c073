"""Warns of settings of prefill/decode separation with which nothing is split."""

from __future__ import annotations

import click

import sage_client as sage
from sage_client import Client, PairState, PrefillDecodeStatus, SplitMode


def say_unsplit(client: Client) -> None:
    """Print a warning on stderr if no request can be split as things are, with what prevents it."""
    try:
        status = client.get_prefill_decode()
    except sage.SageError:
        return  # what was asked for is done all the same
    if why := why_unsplit(status):
        click.echo(f"warning: nothing will be split: {why}", err=True)


def why_unsplit(status: PrefillDecodeStatus) -> str:
    """Return why no request can be split; empty if one can."""
    if status.config.mode is SplitMode.NEVER:
        return "the mode is never (sagectl pd set threshold)"
    if status.pairs_by_state.get(PairState.USABLE.value):
        return ""
    if status.conditions:
        return "; ".join(status.conditions)
    if status.pairs_by_state:
        return "no pair of instances is usable yet (sagectl pd get shows them)"
    return "there is no pair of instances, one for prefill and one for decode"
