"""``sagectl requests``: lists detached work."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice

import click

import sage_client as sage
from sage_client import Client
from sagectl.options.command import command
from sagectl.options.completion import complete_model
from sagectl.options.connecting import connecting
from sagectl.output.durations import duration, local_time
from sagectl.output.formats import Output
from sagectl.output.tables import Cells, show_table

COLUMNS = ("id", "state", "age", "class", "prompt", "output", "model", "why", "accepted", "ended", "kept until")
_NUMBERS = ("prompt", "output")
_WHOLE = ("id", "state", "age", "class", "accepted", "ended", "kept until", *_NUMBERS)
_DROP = ("kept until", "ended", "accepted", "prompt", "model", "class", "output", "why", "age")
"""Columns that a narrow terminal leaves out, the least important first; never id and state."""

STATES = [state.value for state in sage.RequestState if state is not sage.RequestState.UNKNOWN]


@command(
    short_help="List detached work.",
    examples=[
        ("requests", "the latest 100"),
        ("requests --state queued --state running", "only what has not ended"),
        ("requests --state failed -o name", "ids only, for a script"),
    ],
)
@click.option(
    "--state",
    "states",
    type=click.Choice(STATES, case_sensitive=False),
    multiple=True,
    help="Only this state; may be repeated.",
)
@click.option("--model", default="", shell_complete=complete_model, help="Only requests for this model.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Most requests to list.")
@connecting
def requests(client: Client, states: tuple[str, ...], model: str, limit: int, output: Output) -> None:
    """List the tenant's detached work, the latest first."""
    found = client.list(states=states, model=model, page_size=min(limit, 1_000))
    listed = list(islice(found, limit))
    found.close()
    if output.printed(listed, names=[each.request_id for each in listed]):
        return
    if not listed:
        click.echo("no detached requests")
    else:
        rows = [_row(each) for each in listed]
        show_table("", COLUMNS, rows, right=_NUMBERS, whole=_WHOLE, drop=_DROP, wide=output.wide)


def _row(info: sage.RequestInfo) -> Cells:
    return (
        info.request_id,
        info.state.value,
        duration((datetime.now(UTC) - info.accepted_at).total_seconds()),
        info.priority.name.lower(),
        str(info.usage.prompt_tokens),
        str(info.usage.completion_tokens),
        info.model,
        info.error,
        local_time(info.accepted_at),
        local_time(info.ended_at),
        local_time(info.keep_until),
    )
