"""The most that was asked for at a time, lately."""

from __future__ import annotations

from collections import deque
from math import exp

from scheduler_svc.domain.capacity import offered_load

#: Seconds for which a peak is remembered.
MEMORY_S = 300.0
#: Seconds without a load after which the next tells nothing of them: it is averaged over so many.
PAUSE_S = offered_load.MEMORY_S
#: Seconds after such a pause until a load tells next to nothing of it.
RISES_S = 3 * PAUSE_S


class PeakLoad:
    """Remembers the highest of the loads noted in the last ``MEMORY_S`` seconds, and their mean."""

    __slots__ = ("_at", "_counts_at", "_noted", "_seconds", "_work")

    def __init__(self) -> None:
        self._noted: deque[tuple[float, float]] = deque()  # time and load; later ones are lower
        self._at = float("-inf")  # when the usual load was asked for last
        self._counts_at = float("-inf")  # from when on loads count for the usual one
        self._seconds = self._work = 0.0  # of loads so far, later ones weigh more

    def usual(self, load: float, now: float) -> float:
        """Take the load since the last time that this was asked; return the mean of about ``MEMORY_S`` seconds.

        After a pause of more than ``PAUSE_S`` it begins anew, once the load has risen to what it is.
        """
        if self._at == float("-inf"):
            self._at = now
            return load
        since_s = now - self._at
        if since_s > PAUSE_S:
            self._seconds = self._work = 0.0
            self._counts_at = now + RISES_S
        if now < self._counts_at:
            self._at = now
            return load
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
