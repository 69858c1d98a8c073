"""``sagectl attach``: streams a request by its id."""

from __future__ import annotations

import sys

import click

import sage_client as sage
from sage_client import Client
from sagectl.exit_status import ExitStatus
from sagectl.options.command import command
from sagectl.options.completion import complete_request
from sagectl.options.connecting import connecting
from sagectl.options.prefixes import with_request
from sagectl.output.events import write
from sagectl.output.formats import Output


@command(
    short_help="Stream a request by its id.",
    examples=[
        ("attach night-1", "stream what it wrote so far, and what follows"),
        ("attach req-f9f7", "the beginning of an id is enough"),
        ("attach night-1 --after-token 100 --json", "go on at a position, an event a line"),
    ],
)
@click.argument("request_id", shell_complete=complete_request)
@click.option("--after-token", type=click.IntRange(0, 2**32 - 1), default=0, help="Stream from this output position.")
@click.option("--timeout", type=float, metavar="SECONDS", help="Timeout of the whole command.")
@click.option("-v", "--verbose", is_flag=True, help="Print placement, reasons and timings on stderr.")
@connecting
def attach(
    client: Client, request_id: str, after_token: int, timeout: float | None, verbose: bool, output: Output
) -> None:
    """Stream a request's output by its id, or the beginning of it, from the start.

    With --json every event is printed as one line.  Ctrl-C leaves the stream; detached work goes on.
    """

    def follow(whole_id: str) -> None:
        _follow(client.attach(whole_id, after_token=after_token, timeout=timeout), output, verbose=verbose)

    with_request(client, request_id, follow)


def _follow(stream: sage.Stream, output: Output, *, verbose: bool) -> None:
    try:
        write(stream, output, verbose=verbose)
    except KeyboardInterrupt:
        stream.close()
        click.echo(f"\ninterrupted; to end the request: sagectl cancel {stream.request_id}", err=True)
        sys.exit(ExitStatus.INTERRUPTED)
