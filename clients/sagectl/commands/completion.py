"""``sagectl completion``: prints the script that makes a shell complete commands, options and ids."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from sagectl.options.command import command

SHELLS = ("bash", "zsh", "fish")


@command(
    examples=[
        ("completion bash > ~/.local/share/bash-completion/completions/sagectl", "for every new bash"),
        ("completion zsh > ~/.zfunc/_sagectl", "for zsh, with ~/.zfunc in fpath before compinit"),
        ("completion fish > ~/.config/fish/completions/sagectl.fish", "for every new fish"),
    ]
)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that makes SHELL complete commands and ids.

    Ids of instances and requests and names of models and policies are those of the scheduler at --address or
    SAGE_SCHEDULER_ADDRESS, which is asked for at most 2 s.
    """
    found = get_completion_class(shell)
    assert found is not None, shell  # click has all of SHELLS
    click.echo(found(ctx.find_root().command, {}, "sagectl", "_SAGECTL_COMPLETE").source())
