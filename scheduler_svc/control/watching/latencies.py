"""Counts lengths of time in steps of 10 %, from which percentiles can be read and which can be added up."""

from __future__ import annotations

import math
from collections import Counter

STEP = 1.1
"""Ratio of two steps: a percentile is rounded up by 10 % at most."""

SHORTEST_S, LONGEST_S = 1e-4, 1e5
"""Shorter and longer times count as these, so that a count has at most 218 steps."""

_LOG_STEP = math.log(STEP)


class Latencies:
    """Times that requests took, in a stretch of time."""

    __slots__ = ("_steps",)

    def __init__(self) -> None:
        self._steps: Counter[int] = Counter()  # by the exponent of STEP that is the step's upper end, in seconds

    @property
    def count(self) -> int:
        """How many times were counted."""
        return self._steps.total()

    def note(self, took_s: float) -> None:
        """Count one time."""
        self._steps[math.ceil(math.log(min(max(took_s, SHORTEST_S), LONGEST_S)) / _LOG_STEP)] += 1

    def add(self, other: Latencies) -> None:
        """Add the times of ``other`` to these."""
        self._steps.update(other._steps)

    def percentile(self, share: float) -> float:
        """Return the seconds within which a ``share`` of the times lies, rounded up to a step; 0 if there is none."""
        wanted, seen = share * self.count, 0
        for step in sorted(self._steps):
            seen += self._steps[step]
            if seen >= wanted:
                return STEP**step
        return 0.0
