"""``sagectl journal``: looks at the scheduler's journal, and after it."""

from __future__ import annotations

import click

from sage_client import Client, JournalStatus
from sagectl.options.connecting import connecting
from sagectl.output.json_output import print_json
from sagectl.output.tables import show_table


@click.group()
def journal() -> None:
    """Look at the journal, which outlives the scheduler, and after it."""


@journal.command()
@connecting
def status(client: Client, as_json: bool) -> None:
    """Show what the journal is, what it holds and whether it works."""
    found = client.get_journal()
    if as_json:
        print_json(found)
    elif found is None:
        click.echo("no journal: the scheduler has neither journal.url nor state_dir")
    else:
        _show(found)


@journal.command()
@connecting
def compact(client: Client, as_json: bool) -> None:
    """Delete what the journal need not keep any more, and give space back."""
    done = client.compact_journal()
    if as_json:
        print_json(done)
    else:
        click.echo(f"{_mib(done.bytes_before)} -> {_mib(done.bytes)}; {done.usage_deleted:,} usage records deleted")


@journal.command()
@click.option("--table", "tables", multiple=True, help="Only this table; may be repeated.  Default: all.")
@connecting
def export(client: Client, tables: tuple[str, ...], as_json: bool) -> None:
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
