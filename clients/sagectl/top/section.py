"""Fits the sections of a screen into its height."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A title and lines, of which the last ones may be left out."""

    title: Text | None
    lines: Sequence[Text]  # the most important first
    least: int  # lines that the section gets before any section gets more than its own least


def fit(sections: Sequence[Section], height: int | None) -> list[Text]:
    """Return the lines that fit into ``height`` (None: all), with the most important section first.

    Each section first gets its ``least`` lines, in order of importance; the remaining lines are granted in the same
    order.  The last line of a shortened section says how many lines are missing.
    """
    if height is None:
        return [line for section in sections for line in _shown(section, len(section.lines))]
    granted = [0] * len(sections)
    left = height
    for index, section in enumerate(sections):
        title = section.title is not None
        granted[index] = max(0, min(section.least, len(section.lines), left - title))
        left -= granted[index] + (title if granted[index] else 0)
    for index, section in enumerate(sections):
        more = min(left, len(section.lines) - granted[index]) if granted[index] else 0
        granted[index] += more
        left -= more
    return [line for section, count in zip(sections, granted, strict=True) for line in _shown(section, count)]


def _shown(section: Section, count: int) -> list[Text]:
    if not count:
        return []
    lines = list(section.lines[:count])
    missing = len(section.lines) - count
    if missing:
        lines[-1] = Text(f"… and {missing + 1} more", style="dim")
    return [section.title, *lines] if section.title is not None else lines
