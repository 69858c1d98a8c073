"""Prints tables for people; on a narrow terminal without their less important columns."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.markup import escape
from rich.table import Table

from sagectl.output.screen import show, stdout_console

Cells = Sequence[str]

WIDE = 140  # columns of a terminal from which on texts are folded to few cells rather than columns left out
FOLDED, FOLDED_IN_WIDE = 20, 8  # cells to which a text may be folded before a column is left out
_BETWEEN = 3  # cells between two columns; the table's edges take one more


def show_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Cells],
    *,
    right: Sequence[str] = (),
    whole: Sequence[str] = (),
    drop: Sequence[str] = (),
) -> None:
    """Print a table to stdout; nothing if it has no rows.

    Args:
        title: printed above the table.
        columns: their titles.
        rows: one cell per column each.
        right: the columns to align right.
        whole: the columns whose cells stay on one line; those of others are folded where they do not fit.
        drop: the columns to leave out where a terminal is too narrow, the least important first.  Into a pipe all are
            printed.
    """
    if not rows:
        return
    console = stdout_console()
    dropped = _dropped(columns, rows, whole, drop, console.width) if console.is_terminal else set()
    shown = [index for index, column in enumerate(columns) if column not in dropped]
    table = Table(title=title, title_justify="left", title_style="bold")
    for index in shown:
        column = columns[index]
        table.add_column(
            column,
            justify="right" if column in right else "left",
            overflow="fold",
            no_wrap=column in whole,
            min_width=_width(column, index, rows) if column in whole else None,
        )
    for row in rows:
        table.add_row(*(escape(row[index]) for index in shown))
    show(table, console)
    if dropped:
        names = ", ".join(column for column in columns if column in dropped)
        show(f"[dim]not shown in {console.width} columns: {names}; --json has all[/dim]", console)


def _dropped(
    columns: Sequence[str], rows: Sequence[Cells], whole: Sequence[str], drop: Sequence[str], width: int
) -> set[str]:
    """Return the columns to leave out so that the others fit into ``width`` cells."""
    folded = FOLDED if width < WIDE else FOLDED_IN_WIDE
    needed = {column: _width(column, index, rows) for index, column in enumerate(columns)}
    needed.update({column: min(cells, folded) for column, cells in needed.items() if column not in whole})
    dropped: set[str] = set()
    for column in drop:
        if sum(needed.values()) + _BETWEEN * len(needed) + 1 <= width:
            break
        del needed[column]
        dropped.add(column)
    return dropped


def _width(column: str, index: int, rows: Sequence[Cells]) -> int:
    return max(cell_len(text) for text in (column, *(row[index] for row in rows)))
