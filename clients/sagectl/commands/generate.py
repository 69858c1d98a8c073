"""``sagectl generate``: submits a request and prints its output as it arrives."""

from __future__ import annotations

import sys
from typing import Any

import click

import sage_client as sage
from sage_client import Client, Stream
from sagectl.exit_status import ExitStatus
from sagectl.options.command import command
from sagectl.options.connecting import connecting
from sagectl.options.generation import generation_options
from sagectl.options.prompt import what_from
from sagectl.output.events import write
from sagectl.output.formats import Output


@command(
    short_help="Generate text from a prompt and stream it.",
    examples=[
        ("generate 'Once upon a time' --max-tokens 32 -v", "text on stdout, placement and timings on stderr"),
        ("generate 'What is a tuple?' --chat --system 'Be brief.'", "through the model's chat template"),
        ("generate - --priority HIGH --deadline 10 < prompt.txt", "a prompt from a file, with a class and a deadline"),
        ("generate 'Say: ' -n 3 --seed 7", "three choices of one prompt, one after the other"),
        ("generate 'Pick one: ' --choice yes --choice no --json", "constrained output, an event a line"),
    ],
)
@click.argument("prompt", required=False)
@generation_options
@click.option("-v", "--verbose", is_flag=True, help="Print placement, reasons and timings on stderr.")
@connecting
def generate(
    client: Client,
    prompt: str | None,
    chat: bool,
    system: str | None,
    verbose: bool,
    output: Output,
    **options: Any,
) -> None:
    """Generate text from PROMPT and stream it to stdout.

    With -n the first choice is streamed, and the others follow it, each under a line with its number.

    With - or without PROMPT the prompt is read from stdin.  With --json every event is printed as one line.  Ctrl-C
    cancels the request, unless it is --detached.
    """
    what = what_from(client, prompt, chat or system is not None, system, options)
    stream = client.generate(**what)
    try:
        write(stream, output, verbose=verbose)
    except KeyboardInterrupt:
        _interrupted(stream, detached=bool(options["detached"]))


def _interrupted(stream: Stream, *, detached: bool) -> None:
    name = stream.request_id
    if detached:
        stream.close()
        click.echo(f"\ninterrupted; request {name} keeps running; to cancel it: sagectl cancel {name}", err=True)
    else:
        try:
            stream.cancel("interrupted at the terminal")
            click.echo(f"\ninterrupted; request {name} cancelled", err=True)
        except sage.SageError as error:
            click.echo(f"\ninterrupted; request {name} could not be cancelled: {error}", err=True)
    sys.exit(ExitStatus.INTERRUPTED)
