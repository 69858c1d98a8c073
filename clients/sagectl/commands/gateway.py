"""``sagectl gateway``: the OpenAI-compatible HTTP gateway, which is a program of its own."""

from __future__ import annotations

import os
import sys

import click


@click.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "allow_interspersed_args": False},
)
@click.pass_context
def gateway(ctx: click.Context) -> None:
    """Serve the fleet's models over HTTP, as OpenAI's API does.

    Needs vLLM, whose API server it is built on.  `sagectl gateway --help` lists its flags.
    """
    os.execv(sys.executable, [sys.executable, "-m", "sage_gateway", *ctx.args])
