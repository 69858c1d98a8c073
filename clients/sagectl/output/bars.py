"""Draws quantities as bars of characters."""

from __future__ import annotations

from rich.text import Text

FULL, HALF, EMPTY = "█", "▒", "·"


def usage_bar(used: float, reserved: float, width: int) -> Text:
    """Draw the used share of a whole, the reserved share beyond that, and the free rest.

    Args:
        used: share in [0, 1].
        reserved: share in [0, 1]; shown where it exceeds ``used``.
        width: cells.
    """
    full = _cells(used, width)
    half = max(0, _cells(max(used, reserved), width) - full)
    style = "red" if used > 0.9 else "yellow" if used > 0.7 else "green"
    return Text.assemble((FULL * full, style), (HALF * half, style), (EMPTY * (width - full - half), "dim"))


def span_bar(start: float, length: float, width: int, style: str) -> Text:
    """Draw a stretch of a whole at its position; one that took any time gets at least one cell.

    Args:
        start: share of the whole before the stretch, in [0, 1].
        length: share of the whole, in [0, 1].
        width: cells of the whole.
        style: colour of the stretch.
    """
    first = min(width - 1, round(start * width))
    cells = max(1 if length > 0 else 0, round((start + length) * width) - first)
    return Text.assemble(" " * first, (FULL * min(cells, width - first), style))


def _cells(share: float, width: int) -> int:
    """Return a share's cells, at least one for anything above 0."""
    return min(width, max(1 if share > 0 else 0, round(share * width)))
