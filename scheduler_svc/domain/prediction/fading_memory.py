"""How much of what was counted before still counts."""

from __future__ import annotations

from math import exp


class FadingMemory:
    """Weighs what was counted by its age: after ``memory_s`` seconds it weighs 1/e of what is counted now.

    The counts themselves are its owner's, who multiplies all of them by ``kept`` before it adds to any.
    """

    __slots__ = ("_at", "_memory_s")

    def __init__(self, memory_s: float) -> None:
        self._memory_s = memory_s
        self._at = float("-inf")  # when the counts were weighed last

    def kept(self, now: float) -> float:
        """Return what the counts weigh of what they weighed at the last call; 1 if no time has passed."""
        if now <= self._at:
            return 1.0
        weight = exp((self._at - now) / self._memory_s)
        self._at = now
        return weight

    def weight(self, now: float) -> float:
        """Return what ``kept`` would, and change nothing."""
        return exp(min(0.0, self._at - now) / self._memory_s)

    def seconds(self, counted_s: float) -> float:
        """Return the seconds that the counts stand for, ``memory_s`` at most.

        ``counted_s``: seconds since the first was counted.
        """
        return self._memory_s * (1 - exp(-counted_s / self._memory_s))
