"""Warns of an operator's decision that the scheduler's journal does not have."""

from __future__ import annotations

import click


def say_not_kept(why: str) -> None:
    """Print a warning on stderr if a decision is not in the journal; ``why`` is empty if it is."""
    if why:
        click.echo(f"warning: in force, but not in the journal yet, so a restart would forget it: {why}", err=True)
