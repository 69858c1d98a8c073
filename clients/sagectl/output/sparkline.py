"""Draws a row of numbers as a line of small bars."""

from __future__ import annotations

from collections.abc import Sequence

STEPS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float | None], width: int) -> str:
    """Return at most ``width`` bars, the latest value last; the highest bar stands for the largest value.

    Where there are more values than bars, each bar shows the largest of several in a row.  None, where nothing was
    measured, is a blank; zero is the lowest bar.
    """
    if width < 1:
        return ""
    per_bar = max(1, -(-len(values) // width))
    # Grouped from the end, so that the latest bar is always a whole one.
    firsts = range(len(values) % per_bar - per_bar if len(values) % per_bar else 0, len(values), per_bar)
    bars = [_largest(values[max(0, first) : first + per_bar]) for first in firsts]
    top = max((bar for bar in bars if bar is not None), default=0.0) or 1.0
    return "".join(" " if bar is None else STEPS[round(bar / top * (len(STEPS) - 1))] for bar in bars)


def _largest(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)
