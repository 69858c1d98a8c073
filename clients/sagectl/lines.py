"""Lines of exactly one row each: columns of given widths, cut where they do not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.text import Text


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    title: str
    width: int  # cells
    align: Literal["left", "right"] = "left"


def rest(title: str, columns: Sequence[Column], width: int) -> Column:
    """A column that fills what ``columns`` leave of a line; at least 8 cells."""
    taken = sum(column.width + 1 for column in columns)
    return Column(title=title, width=max(8, width - taken))


def row(columns: Sequence[Column], cells: Sequence[Text | str]) -> Text:
    """One cell per column, and a space between."""
    return Text(" ").join(fitted(cell, column) for cell, column in zip(cells, columns, strict=True))


def titles(columns: Sequence[Column]) -> Text:
    line = row(columns, [column.title for column in columns])
    line.stylize("bold on grey23")
    return line


def fitted(cell: Text | str, column: Column) -> Text:
    """On one line, whatever was in it."""
    text = Text(" ".join(cell.split())) if isinstance(cell, str) else cell.copy()
    text.truncate(column.width, overflow="ellipsis")
    text.align(column.align, column.width)
    return text
