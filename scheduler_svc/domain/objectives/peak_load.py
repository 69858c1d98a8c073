"""The most that was asked for at a time, lately."""

from __future__ import annotations

from collections import deque

#: Seconds for which a peak is remembered.
MEMORY_S = 300.0


class PeakLoad:
    """Remembers the highest of the loads noted in the last ``MEMORY_S`` seconds."""

    __slots__ = ("_noted",)

    def __init__(self) -> None:
        self._noted: deque[tuple[float, float]] = deque()  # time and load; later ones are lower

    def note(self, load: float, now: float) -> float:
        """Take the load at a time, in any unit; return the highest."""
        noted = self._noted
        while noted and noted[-1][1] <= load:
            noted.pop()
        noted.append((now, load))
        while noted[0][0] < now - MEMORY_S:
            noted.popleft()
        return noted[0][1]
