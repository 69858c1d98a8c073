"""The most that was asked for at a time, lately."""

from __future__ import annotations

from collections import deque
from math import exp

#: Seconds for which a peak is remembered.
MEMORY_S = 300.0


class PeakLoad:
    """Remembers the highest of the loads noted in the last ``MEMORY_S`` seconds, and their mean."""

    __slots__ = ("_at", "_noted", "_seconds", "_work")

    def __init__(self) -> None:
        self._noted: deque[tuple[float, float]] = deque()  # time and load; later ones are lower
        self._at = float("-inf")  # when the usual load was asked for last
        self._seconds = self._work = 0.0  # of loads so far, later ones weigh more

    def usual(self, load: float, now: float) -> float:
        """Take the load since the last time that this was asked; return the mean of about ``MEMORY_S`` seconds."""
        if self._at == float("-inf"):
            self._at = now
            return load
        since_s = now - self._at
        forget = exp(-since_s / MEMORY_S)
        self._seconds = self._seconds * forget + since_s
        self._work = self._work * forget + since_s * load
        self._at = now
        return self._work / self._seconds if self._seconds else load

    def note(self, load: float, now: float) -> float:
        """Take the load at a time, in any unit; return the highest."""
        noted = self._noted
        while noted and noted[-1][1] <= load:
            noted.pop()
        noted.append((now, load))
        while noted[0][0] < now - MEMORY_S:
            noted.popleft()
        return noted[0][1]
