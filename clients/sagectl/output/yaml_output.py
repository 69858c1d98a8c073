"""Prints the SDK's values as YAML, with the keys of JSON."""

from __future__ import annotations

from typing import Any

import click

from sage_client import plain


def print_yaml(value: Any) -> None:
    """Print one YAML document to stdout."""
    import yaml  # most commands do without

    click.echo(yaml.safe_dump(plain(value), sort_keys=False, allow_unicode=True, width=float("inf")), nl=False)
