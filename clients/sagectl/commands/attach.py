"""``sagectl attach``: streams a request by its id."""

from __future__ import annotations

import sys

import click

from sage_client import Client
from sagectl.exit_status import ExitStatus
from sagectl.options.connecting import connecting
from sagectl.output.events import write


@click.command(short_help="Stream a request by its id.")
@click.argument("request_id")
@click.option("--after-token", type=click.IntRange(0, 2**32 - 1), default=0, help="Stream from this output position.")
@click.option("--timeout", type=float, metavar="SECONDS", help="Timeout of the whole command.")
@click.option("-v", "--verbose", is_flag=True, help="Print placement, reasons and timings on stderr.")
@connecting
def attach(
    client: Client, request_id: str, after_token: int, timeout: float | None, verbose: bool, as_json: bool
) -> None:
    """Stream a request's output by its id alone, from the start.

    With --json every event is printed as one line.  Ctrl-C leaves the stream; detached work goes on.
    """
    stream = client.attach(request_id, after_token=after_token, timeout=timeout)
    try:
        write(stream, as_json=as_json, verbose=verbose)
    except KeyboardInterrupt:
        stream.close()
        click.echo(f"\ninterrupted; to end the request: sagectl cancel {request_id}", err=True)
        sys.exit(ExitStatus.INTERRUPTED)
