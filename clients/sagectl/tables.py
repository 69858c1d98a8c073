"""Prints tables for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from sagectl.screen import show

Cells = Sequence[str]


def show_table(title: str, columns: Sequence[str], rows: Sequence[Cells], *, right: Sequence[str] = ()) -> None:
    """Print a table to stdout; nothing if it has no rows.  ``right`` names the columns to align right."""
    if not rows:
        return
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    show(table)
