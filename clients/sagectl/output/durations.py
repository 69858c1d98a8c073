"""Writes lengths of time and points in time, short enough for a column."""

from __future__ import annotations

from datetime import datetime


def duration(seconds: float) -> str:
    """Return a duration in at most six characters, for up to years."""
    if seconds < 60:
        return f"{int(seconds)}s"
    minutes = int(seconds) // 60
    if minutes < 10:
        return f"{minutes}m{int(seconds) % 60:02}s"
    if minutes < 60:
        return f"{minutes}m"
    hours = minutes / 60
    return f"{hours:.1f}h" if hours < 48 else f"{hours / 24:.0f}d"


def local_time(at: datetime | None) -> str:
    """Return a point in time of the local zone, to the second; empty for None."""
    return "" if at is None else at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
