"""Quantities as bars of characters."""

from __future__ import annotations

from rich.text import Text

FULL, HALF, EMPTY = "█", "▒", "·"


def room_bar(used: float, reserved: float, width: int) -> Text:
    """Shares of a whole: what is used, what is reserved beyond that, what is free."""
    full = _cells(used, width)
    half = max(0, _cells(max(used, reserved), width) - full)
    style = "red" if used > 0.9 else "yellow" if used > 0.7 else "green"
    return Text.assemble((FULL * full, style), (HALF * half, style), (EMPTY * (width - full - half), "dim"))


def span_bar(start: float, length: float, width: int, style: str) -> Text:
    """A stretch of a whole, where it lies in it; whatever took time shows."""
    first = min(width - 1, round(start * width))
    cells = max(1 if length > 0 else 0, round((start + length) * width) - first)
    return Text.assemble(" " * first, (FULL * min(cells, width - first), style))


def _cells(share: float, width: int) -> int:
    """Anything above nothing is at least one."""
    return min(width, max(1 if share > 0 else 0, round(share * width)))
