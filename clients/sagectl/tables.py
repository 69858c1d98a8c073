"""Tables for people.  The only place that knows rich."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

Cells = Sequence[str]

PIPE_WIDTH = 200  # columns; a pipe has no width of its own and cutting cells there would lose data


def show_table(title: str, columns: Sequence[str], rows: Sequence[Cells], *, right: Sequence[str] = ()) -> None:
    """Prints a table to stdout; nothing if it has no rows.  ``right`` names columns to align right."""
    if not rows:
        return
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPE_WIDTH)
    console.print(table)
