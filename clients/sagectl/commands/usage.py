"""``sagectl usage``: what requests used, summed or one by one."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from sage_client import Client, UsageGroup, UsageRecord, UsageSum, plain
from sagectl.options.connecting import connecting
from sagectl.output.json_output import print_json
from sagectl.output.tables import show_table

GROUPS = ", ".join(each.value for each in UsageGroup)

_FIGURES = [each.name for each in fields(UsageSum) if each.name != "groups"]
_AGO = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def _time(context: click.Context, option: click.Parameter, value: str | None) -> datetime | None:
    """Return a time: "2026-01-31", "2026-01-31T12:00" (local where it names no zone), or how long ago: "24h"."""
    if value is None:
        return None
    try:
        if ago := _AGO.fullmatch(value):
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: float(ago[1])})
        return datetime.fromisoformat(value).astimezone()
    except (ValueError, OverflowError):  # the latter: further away than a calendar reaches
        problem = f"{value!r} is neither a time such as 2026-01-31T12:00 nor how long ago, such as 24h"
        raise click.BadParameter(problem) from None


def _groups(context: click.Context, option: click.Parameter, value: str) -> tuple[UsageGroup, ...]:
    """Return the groups that are named between commas."""
    try:
        return tuple(UsageGroup(each.strip()) for each in value.split(",") if each.strip())
    except ValueError:
        raise click.BadParameter(f"{value!r}: the groups are {GROUPS}") from None


@click.command()
@click.option("--since", callback=_time, help="Requests that ended at this time or later: 2026-01-31, or 24h (ago).")
@click.option("--until", callback=_time, help="Requests that ended before this time.")
@click.option("--by", callback=_groups, default="", help=f"Sum by these, between commas: {GROUPS}.  Default: one sum.")
@click.option("--records", is_flag=True, help="List single requests instead of sums.")
@click.option("--limit", type=click.IntRange(min=1), default=None, help="Most records of --records.  Default: all.")
@click.option("--of-tenant", multiple=True, help="Only of this tenant; may be repeated.")
@click.option("--model", multiple=True, help="Only of this model; may be repeated.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "csv", "json"]),
    default="table",
    show_default=True,
    help="How to print it; json prints one object a line.",
)
@connecting
def usage(
    client: Client,
    since: datetime | None,
    until: datetime | None,
    by: tuple[UsageGroup, ...],
    records: bool,
    limit: int | None,
    of_tenant: tuple[str, ...],
    model: tuple[str, ...],
    output: str,
    as_json: bool,
) -> None:
    """Show what requests used: numbers of requests, tokens and cost, from the scheduler's journal."""
    output = "json" if as_json else output
    if records:
        found = client.list_usage(since=since, until=until, tenants=of_tenant, models=model, limit=limit)
        _show_records(found, output)
    else:
        _show_sums(client.sum_usage(by, since=since, until=until, tenants=of_tenant, models=model), by, output)


def _show_records(records: Iterable[UsageRecord], output: str) -> None:
    columns = [each.name for each in fields(UsageRecord)]
    if output == "json":
        for each in records:
            print_json(each, indent=None)
    elif output == "csv":
        click.echo(_csv_line(columns), nl=False)
        for each in records:
            click.echo(_csv_line(plain(each).values()), nl=False)
    else:
        shown = ("ended_at", "tenant", "request_id", "model", "prompt_tokens", "output_tokens", "cost", "end", "reason")
        rows = [[_cell(plain(each)[name]) for name in shown] for each in records]
        show_table("requests", shown, rows, right=("prompt_tokens", "output_tokens", "cost"))


def _show_sums(sums: Iterable[UsageSum], by: tuple[UsageGroup, ...], output: str) -> None:
    columns = [*(each.value for each in by), *_FIGURES]
    rows = [[*each.groups, *(getattr(each, name) for name in _FIGURES)] for each in sums]
    if output == "json":
        for row in rows:
            print_json(dict(zip(columns, row, strict=True)), indent=None)
    elif output == "csv":
        for line in (columns, *rows):
            click.echo(_csv_line(line), nl=False)
    else:
        show_table("usage", columns, [[_cell(each) for each in row] for row in rows], right=_FIGURES)


def _csv_line(values: Iterable[Any]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(["" if each is None else each for each in values])
    return line.getvalue()


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
