"""``sagectl submit``, ``attach``, ``requests`` and ``result``: detached work."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar

import click

import sage_client as sage
from sage_client import Client
from sagectl.connecting import connecting
from sagectl.exit_status import ExitStatus
from sagectl.generate import narrate, what_from, write
from sagectl.generate_options import PROMPT, SAMPLING, SCHEDULING
from sagectl.json_output import print_json
from sagectl.tables import Cells, show_table

_F = TypeVar("_F", bound=Callable[..., Any])

COLUMNS = ("id", "state", "model", "class", "prompt", "output", "accepted", "ended", "kept until", "why")
_NUMBERS = ("prompt", "output")
_DROP = ("class", "kept until", "prompt", "model", "accepted", "ended", "output", "why")
_NOT_FOR_SUBMIT = {"after_token", "detached"}
STATES = [state.value for state in sage.RequestState if state is not sage.RequestState.UNKNOWN]


def _options(command: _F) -> _F:
    for option in reversed((*PROMPT, *SAMPLING, *SCHEDULING)):
        command = option(command)
    return command


def _without(names: set[str]) -> Callable[[click.Command], click.Command]:
    def trimmed(command: click.Command) -> click.Command:
        command.params = [param for param in command.params if param.name not in names]
        return command

    return trimmed


@_without(_NOT_FOR_SUBMIT)
@click.command(short_help="Submit detached work and print its id.")
@click.argument("prompt", required=False)
@_options
@click.option("--keep-result", type=float, metavar="SECONDS", help="Seconds to keep the result after the end.")
@connecting
def submit(
    client: Client,
    prompt: str | None,
    chat: bool,
    system: str | None,
    keep_result: float | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Submit a request that needs no client, and print its id.

    It goes on whatever happens to this command or to the scheduler, and its result is kept: see sagectl requests and
    sagectl result.  The same id and content again give the same request.  With - or without PROMPT the prompt is read
    from stdin.
    """
    what: Any = what_from(prompt, chat or system is not None, system, options)
    accepted = client.submit(**what, keep_result=keep_result).accepted
    if as_json:
        print_json(accepted)
    else:
        click.echo(accepted.request_id)
        click.echo(narrate(accepted), err=True)


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


@click.command(short_help="List detached work.")
@click.option("--state", "states", type=click.Choice(STATES), multiple=True, help="Only this state; may be repeated.")
@click.option("--model", default="", help="Only requests for this model.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Most requests to list.")
@connecting
def requests(client: Client, states: tuple[str, ...], model: str, limit: int, as_json: bool) -> None:
    """List the tenant's detached work, the latest first."""
    found = client.list(states=states, model=model, page_size=min(limit, 1_000))
    listed = list(islice(found, limit))
    found.close()
    if as_json:
        print_json(listed)
    elif not listed:
        click.echo("no detached requests")
    else:
        show_table("detached requests", COLUMNS, [_row(e) for e in listed], right=_NUMBERS, whole=("id",), drop=_DROP)


@click.command(short_help="Print the result of detached work.")
@click.argument("request_id")
@click.option("--wait", is_flag=True, help="Wait for its end; otherwise fail if it has not ended.")
@click.option("--timeout", type=float, metavar="SECONDS", help="Longest time to wait.")
@connecting
def result(client: Client, request_id: str, wait: bool, timeout: float | None, as_json: bool) -> None:
    """Print the output text of detached work that has ended; with --json everything that is kept of it."""
    status = client.get(request_id)
    if status.request.ended_at is None and not wait:
        click.echo(f"{request_id}: {status.request.state.value}; --wait waits for its end", err=True)
        sys.exit(ExitStatus.CONFLICT)
    done = client.attach(request_id, timeout=timeout).result()
    if as_json:
        print_json({"request": client.get(request_id).request, "result": done})
    else:
        click.echo(done.text)


def _row(info: sage.RequestInfo) -> Cells:
    return (
        info.request_id,
        info.state.value,
        info.model,
        info.priority.name,
        str(info.usage.prompt_tokens),
        str(info.usage.completion_tokens),
        _time(info.accepted_at),
        _time(info.ended_at),
        _time(info.keep_until),
        info.error,
    )


def _time(at: datetime | None) -> str:
    return "" if at is None else at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
