"""``sagectl requests``: lists detached work."""

from __future__ import annotations

from datetime import datetime
from itertools import islice

import click

import sage_client as sage
from sage_client import Client
from sagectl.options.connecting import connecting
from sagectl.output.json_output import print_json
from sagectl.output.tables import Cells, show_table

COLUMNS = ("id", "state", "model", "class", "prompt", "output", "accepted", "ended", "kept until", "why")
_NUMBERS = ("prompt", "output")
_DROP = ("class", "kept until", "prompt", "model", "accepted", "ended", "output", "why")
STATES = [state.value for state in sage.RequestState if state is not sage.RequestState.UNKNOWN]


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
