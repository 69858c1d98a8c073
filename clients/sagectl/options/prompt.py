"""Makes the arguments of ``Client.generate`` of a command's prompt and options."""

from __future__ import annotations

import sys
from typing import Any

import click

import sage_client as sage
from sage_client import Client
from sagectl.options.generation import to_sdk
from sagectl.options.prefixes import preferred_instance


def what_from(
    client: Client, prompt: str | None, chat: bool, system: str | None, options: dict[str, Any]
) -> sage.GenerateOptions:
    """Return the arguments of ``Client.generate``.  Raises click.UsageError, and what ``preferred_instance`` raises.

    ``client``: asked for the instances if one is preferred.
    """
    given: Any = to_sdk(options)
    if "preferred_instance" in given:
        given["preferred_instance"] = preferred_instance(client, given["preferred_instance"])
    if "token_ids" in given:
        if prompt is not None or chat:
            raise click.UsageError("give either a prompt or --token-ids, not both")
        return given  # type: ignore[no-any-return]
    text = _prompt_text(prompt)
    if not chat:
        return given | {"prompt": text}  # type: ignore[no-any-return]
    turns = [{"role": "system", "content": system}] if system is not None else []
    return given | {"messages": [*turns, {"role": "user", "content": text}]}  # type: ignore[no-any-return]


def _prompt_text(prompt: str | None) -> str:
    if prompt not in (None, "-"):
        return prompt
    if prompt is None and sys.stdin.isatty():
        raise click.UsageError("no prompt: give one, or - to read it from the terminal")
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise click.UsageError(f"stdin is not UTF-8 text: {error}") from error
