"""Prints tables: fitted to the width of a terminal; a line a row in a pipe."""

from __future__ import annotations

from collections.abc import Sequence

import click
from rich.cells import cell_len, set_cell_size
from rich.markup import escape
from rich.table import Table

from sagectl.output.screen import show, stdout_console

Cells = Sequence[str]

FOLDED_TERMINAL = 140  # columns of a terminal from which on texts are folded to few cells rather than columns left out
FOLDED, FOLDED_IN_WIDE = 20, 8  # cells to which a text may be folded before a column is left out
EMPTY = "-"  # stands for an empty cell in a pipe, so that a row has as many words as columns
_PRINTED = "sagectl.table"  # key of the click context's ``meta``: a table was printed
_BETWEEN = 2  # cells between two columns


def show_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Cells],
    *,
    right: Sequence[str] = (),
    whole: Sequence[str] = (),
    drop: Sequence[str] = (),
    wide: bool = False,
    all_by: str = "-o wide",
) -> None:
    """Print a table to stdout; nothing if it has no rows.

    Into a pipe every column is printed and nothing is folded or cut.

    Args:
        title: printed above the table; empty where the table is all that a command prints, or the first.
        columns: their titles.
        rows: one cell per column each.
        right: the columns to align right.
        whole: the columns whose cells stay on one line; those of others are folded where they do not fit.
        drop: the columns to leave out where a terminal is too narrow, the least important first.
        wide: print every column on a terminal, too.
        all_by: the option that shows what is left out.
    """
    if not rows:
        return
    _separate()
    console = stdout_console()
    if not console.is_terminal:
        _print_plain(title, columns, rows, right)
        return
    dropped = set() if wide else _dropped(columns, rows, whole, drop, console.width)
    show(_drawn(title, columns, rows, right, whole, dropped), console)
    if dropped:
        names = ", ".join(column for column in columns if column in dropped)
        show(f"[dim]not shown in {console.width} columns: {names} ({all_by} shows all)[/dim]", console)


def _drawn(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Cells],
    right: Sequence[str],
    whole: Sequence[str],
    dropped: set[str],
) -> Table:
    """Return the table for a terminal, without the columns that are ``dropped``."""
    table = Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=None,
        pad_edge=False,
        padding=(0, _BETWEEN, 0, 0),
    )
    shown = [index for index, column in enumerate(columns) if column not in dropped]
    for index in shown:
        column = columns[index]
        table.add_column(
            column.upper(),
            justify="right" if column in right else "left",
            overflow="fold",
            no_wrap=column in whole,
            min_width=_width(column, index, rows) if column in whole else None,
        )
    for row in rows:
        table.add_row(*(escape(row[index]) for index in shown))
    return table


def _separate() -> None:
    """Print an empty line if the command printed a table before."""
    context = click.get_current_context(silent=True)
    if context is not None and context.meta.get(_PRINTED):
        click.echo()
    if context is not None:
        context.meta[_PRINTED] = True


def _print_plain(title: str, columns: Sequence[str], rows: Sequence[Cells], right: Sequence[str]) -> None:
    """Print a line per row, with two spaces between columns."""
    if title:
        click.echo(title)
    cells = [[column.upper() for column in columns], *([_on_one_line(cell) for cell in row] for row in rows)]
    widths = [max(cell_len(row[index]) for row in cells) for index in range(len(columns))]
    for row in cells:
        line = (
            " " * (width - cell_len(cell)) + cell if column in right else set_cell_size(cell, width)
            for cell, column, width in zip(row, columns, widths, strict=True)
        )
        click.echo((" " * _BETWEEN).join(line).rstrip())


def _on_one_line(cell: str) -> str:
    return " ".join(cell.split()) or EMPTY


def _dropped(
    columns: Sequence[str], rows: Sequence[Cells], whole: Sequence[str], drop: Sequence[str], width: int
) -> set[str]:
    """Return the columns to leave out so that the others fit into ``width`` cells."""
    folded = FOLDED if width < FOLDED_TERMINAL else FOLDED_IN_WIDE
    needed = {column: _width(column, index, rows) for index, column in enumerate(columns)}
    needed.update({column: min(cells, folded) for column, cells in needed.items() if column not in whole})
    dropped: set[str] = set()
    for column in drop:
        if sum(needed.values()) + _BETWEEN * (len(needed) - 1) <= width:
            break
        del needed[column]
        dropped.add(column)
    return dropped


def _width(column: str, index: int, rows: Sequence[Cells]) -> int:
    return max(cell_len(text) for text in (column, *(row[index] for row in rows)))
