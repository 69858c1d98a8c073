"""Lays out lines of one row each: columns of given widths, truncated where they do not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.text import Text


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One column of a line."""

    title: str
    width: int  # cells
    align: Literal["left", "right"] = "left"


def rest(title: str, columns: Sequence[Column], width: int) -> Column:
    """Return a column for the rest of a line of ``width`` cells after ``columns``; at least 8 cells."""
    taken = sum(column.width + 1 for column in columns)
    return Column(title=title, width=max(8, width - taken))


def row(columns: Sequence[Column], cells: Sequence[Text | str]) -> Text:
    """Return a line with one cell per column and a space between columns."""
    return Text(" ").join(fitted(cell, column) for cell, column in zip(cells, columns, strict=True))


def titles(columns: Sequence[Column]) -> Text:
    """Return the line of column titles."""
    line = row(columns, [column.title for column in columns])
    line.stylize("bold on grey23")
    return line


def fitted(cell: Text | str, column: Column) -> Text:
    """Return a cell on one line, truncated and aligned to its column."""
    text = Text(" ".join(cell.split())) if isinstance(cell, str) else cell.copy()
    text.truncate(column.width, overflow="ellipsis")
    text.align(column.align, column.width)
    return text
