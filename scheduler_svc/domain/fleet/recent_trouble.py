"""Requests of the last half minute that show a lack of instances."""

from __future__ import annotations

from math import exp

MEMORY_S = 30.0
"""Seconds after which a request weighs 1/e of a new one."""
_FEW = 20.0  # placements: fewer count as so many, the others without a miss


class RecentTrouble:
    """Counts placements, those predicted to miss a target, and requests that were turned away; all fade."""

    __slots__ = ("_at", "_missed", "_placed", "_turned_away")

    def __init__(self) -> None:
        self._at = float("-inf")
        self._placed = self._missed = self._turned_away = 0.0

    def placed(self, now: float, *, missed: bool) -> None:
        """Count a placement."""
        self._fade(now)
        self._placed += 1
        self._missed += missed

    def turned_away(self, count: int, now: float) -> None:
        """Count requests that were refused for lack of room, or left the queue without a placement."""
        self._fade(now)
        self._turned_away += count

    def missed_share(self, now: float) -> float:
        """Return the share of recent placements that are predicted to miss a target."""
        self._fade(now)
        return self._missed / max(self._placed, _FEW)

    def recently_turned_away(self, now: float) -> float:
        """Return how many requests were turned away recently, faded."""
        self._fade(now)
        return self._turned_away

    def _fade(self, now: float) -> None:
        if now > self._at:
            kept = exp((self._at - now) / MEMORY_S)
            self._placed *= kept
            self._missed *= kept
            self._turned_away *= kept
            self._at = now
