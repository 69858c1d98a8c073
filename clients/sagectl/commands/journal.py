"""``sagectl journal``: shows, compacts and exports the scheduler's journal."""

from __future__ import annotations

import click

from sage_client import Client, JournalStatus
from sagectl.options.command import group
from sagectl.options.connecting import connecting, connecting_for
from sagectl.output.formats import Format, Output
from sagectl.output.tables import show_table


@group()
def journal() -> None:
    """Show, compact or export the journal, which outlives the scheduler."""


@journal.command("status", examples=[("journal status", "is it there, does it work, how large is it")])
@connecting
def status(client: Client, output: Output) -> None:
    """Show what the journal is, what it holds and whether it works."""
    found = client.get_journal()
    if output.printed(found, names=[found.database] if found is not None else ()):
        return
    if found is None:
        click.echo("no journal: the scheduler has neither journal.url nor state_dir, or its journal.url is none")
    else:
        _show(found)


@journal.command("compact", examples=[("journal compact", "free what is kept no longer; may take minutes")])
@connecting
def compact(client: Client, output: Output) -> None:
    """Delete what the journal need not keep any more, and give space back."""
    done = client.compact_journal()
    if not output.printed(done, names=()):
        click.echo(f"{_mib(done.bytes_before)} -> {_mib(done.bytes)}; {done.usage_deleted:,} usage records deleted")


@journal.command(
    "export",
    examples=[
        ("journal export > journal.jsonl", "everything but what requests said"),
        ("journal export --table usage_records", "one table"),
    ],
)
@click.option("--table", "tables", multiple=True, help="Only this table; may be repeated.  [default: all]")
@connecting_for(Format.JSON)
def export(client: Client, tables: tuple[str, ...], output: Output) -> None:
    """Print every row of the journal as one JSON object a line."""
    for line in client.export_journal(tables=tables):
        click.echo(line)


def _show(found: JournalStatus) -> None:
    limit = f" of {_mib(found.limit_bytes)}" if found.limit_bytes else ""
    click.echo(f"{found.database}: {_mib(found.bytes)}{limit}")
    click.echo(
        f"fleet {found.fleet}, tables of version {found.schema_version}, made {found.created_at:%Y-%m-%d %H:%M} UTC"
    )
    click.echo(f"trouble: {found.trouble}" if found.trouble else "it works")
    click.echo(
        f"{found.writes:,} writes in {found.commits:,} transactions of {1_000 * found.mean_commit_s:.1f} ms;"
        f" {found.waiting} wait; {found.failed} failed, {found.refused} refused"
    )
    click.echo(f"usage records: {found.usage_written:,} written, {found.usage_dropped:,} dropped")
    rows = [[name, f"{count:,}"] for name, count in found.rows.items()]
    show_table("tables", ["name", "rows"], rows, right=["rows"])


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
