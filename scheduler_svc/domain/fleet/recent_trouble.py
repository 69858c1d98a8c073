"""Requests of the last minutes that show a lack of instances."""

from __future__ import annotations

from scheduler_svc.domain.prediction.fading_memory import FadingMemory

TURNED_AWAY_S = 30.0
"""Seconds after which a request that was turned away weighs 1/e of a new one."""
FINISHED_S = 120.0
"""The same of a request that finished: late ones are rare, so more of them have to be seen."""
_FEW = 100.0  # requests that finished: fewer count as so many, the others in time


class RecentTrouble:
    """Counts requests that finished, those that missed a target, and those that were turned away; all fade."""

    __slots__ = ("_finished", "_finished_memory", "_late", "_turned_away", "_turned_away_memory")

    def __init__(self) -> None:
        self._finished_memory, self._turned_away_memory = FadingMemory(FINISHED_S), FadingMemory(TURNED_AWAY_S)
        self._finished = self._late = self._turned_away = 0.0

    def finished(self, now: float, *, late: bool) -> None:
        """Count a request that finished.  ``late``: it missed a target."""
        self._fade(now)
        self._finished += 1
        self._late += late

    def turned_away(self, count: int, now: float) -> None:
        """Count requests that were refused for lack of room, or left the queue without a placement."""
        self._fade(now)
        self._turned_away += count

    def late_share(self, now: float) -> float:
        """Return the share of requests that finished recently and missed a target."""
        self._fade(now)
        return self._late / max(self._finished, _FEW)

    def recently_turned_away(self, now: float) -> float:
        """Return how many requests were turned away recently, faded."""
        self._fade(now)
        return self._turned_away

    def _fade(self, now: float) -> None:
        kept = self._finished_memory.kept(now)
        self._finished *= kept
        self._late *= kept
        self._turned_away *= self._turned_away_memory.kept(now)
