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
from sagectl.options.command import command
from sagectl.options.completion import complete_model
from sagectl.options.connecting import FORMATS, connecting_for
from sagectl.output.durations import local_time
from sagectl.output.formats import Format, Output
from sagectl.output.tables import Cells, show_table

GROUPS = ", ".join(each.value for each in UsageGroup)

_FIGURES = [each.name for each in fields(UsageSum) if each.name != "groups"]
_SHOWN = ("id", "ended", "tenant", "model", "prompt", "output", "cost", "end")
_NUMBERS = ("prompt", "output", "cost")
_DROP = ("cost", "tenant", "model", "prompt", "output", "ended")
_DROP_SUMS = ("attempts", "cached prompt tokens")
"""Columns that a narrow terminal leaves out, the least important first."""

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


@command(
    examples=[
        ("usage --since 24h --by tenant,model", "sums of a day"),
        ("usage --since 2026-01-01 --until 2026-02-01 --by tenant -o csv", "a month, for a spreadsheet"),
        ("usage --records --limit 100 --json", "single requests, one a line"),
    ]
)
@click.option("--since", callback=_time, help="Requests that ended at this time or later: 2026-01-31, or 24h (ago).")
@click.option("--until", callback=_time, help="Requests that ended before this time.")
@click.option("--by", callback=_groups, default="", help=f"Sum by these, between commas: {GROUPS}.  [default: one sum]")
@click.option("--records", is_flag=True, help="List single requests instead of sums.")
@click.option("--limit", type=click.IntRange(min=1), help="Most records of --records.  [default: all]")
@click.option("--of-tenant", multiple=True, help="Only of this tenant; may be repeated.")
@click.option("--model", multiple=True, shell_complete=complete_model, help="Only of this model; may be repeated.")
@connecting_for(*FORMATS, Format.CSV)
def usage(
    client: Client,
    since: datetime | None,
    until: datetime | None,
    by: tuple[UsageGroup, ...],
    records: bool,
    limit: int | None,
    of_tenant: tuple[str, ...],
    model: tuple[str, ...],
    output: Output,
) -> None:
    """Show what requests used: tokens, attempts and cost.

    The figures are from the scheduler's journal, of requests that ended.

    With --json one object is printed per line.
    """
    if records:
        found = client.list_usage(since=since, until=until, tenants=of_tenant, models=model, limit=limit)
        _show_records(found, output)
    else:
        _show_sums(client.sum_usage(by, since=since, until=until, tenants=of_tenant, models=model), by, output)


def _show_records(records: Iterable[UsageRecord], output: Output) -> None:
    if output.format is Format.CSV:
        click.echo(_csv_line(each.name for each in fields(UsageRecord)), nl=False)
        for each in records:
            click.echo(_csv_line(plain(each).values()), nl=False)
        return
    rows = [_record_row(each) for each in records if not output.printed_next(each, name=each.request_id)]
    if output.for_people and not rows:
        click.echo("no records")
    show_table("", _SHOWN, rows, right=_NUMBERS, whole=("id", "ended", *_NUMBERS), drop=_DROP, wide=output.wide)


def _record_row(record: UsageRecord) -> Cells:
    return [
        record.request_id,
        local_time(record.ended_at),
        record.tenant,
        record.model,
        _cell(record.prompt_tokens),
        _cell(record.output_tokens),
        _cell(record.cost),
        f"{record.end}: {record.reason}" if record.reason else record.end,
    ]


def _show_sums(sums: Iterable[UsageSum], by: tuple[UsageGroup, ...], output: Output) -> None:
    columns = [*(each.value for each in by), *_FIGURES]
    rows = [[*each.groups, *(getattr(each, name) for name in _FIGURES)] for each in sums]
    if output.format is Format.CSV:
        for line in (columns, *rows):
            click.echo(_csv_line(line), nl=False)
        return
    left = [
        row
        for row in rows
        if not output.printed_next(dict(zip(columns, row, strict=True)), name=",".join(map(str, row[: len(by)])))
    ]
    titles = [each.replace("_", " ") for each in columns]
    cells = [[_cell(each) for each in row] for row in left]
    groups, figures = titles[: len(by)], titles[len(by) :]
    show_table("", titles, cells, right=figures, whole=(*groups, *figures), drop=_DROP_SUMS, wide=output.wide)


def _csv_line(values: Iterable[Any]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(["" if each is None else each for each in values])
    return line.getvalue()


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
