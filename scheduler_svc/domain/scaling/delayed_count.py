"""A number of instances that follows wishes after a while."""

from __future__ import annotations

from collections import deque

_MOST_WISHES = 4_096


class DelayedCount:
    """Rises to what was wished throughout the up delay, and falls to the most that was wished in the down delay."""

    __slots__ = ("_first_at", "_wishes", "count", "since")

    def __init__(self, count: int, now: float) -> None:
        self.count = count
        self.since = now  # when the count changed last, seconds on the scheduler's clock
        self._first_at = now
        self._wishes: deque[tuple[float, int]] = deque(maxlen=_MOST_WISHES)

    def wish(self, wanted: int, now: float, *, up_delay_s: float, down_delay_s: float, present: int) -> int:
        """Take a wish and return the number to have.

        ``present``: instances there are.  In the first ``down_delay_s`` seconds none of them goes: a scheduler that
        starts anew knows nothing of the load yet.  From zero the number rises at once.
        """
        keep_s = max(up_delay_s, down_delay_s)
        self._wishes.append((now, wanted))
        while self._wishes[0][0] < now - keep_s:
            self._wishes.popleft()
        highest = max(each for _, each in self._wishes)
        lowest = min(each for at, each in self._wishes if at >= now - up_delay_s)
        if now - self._first_at < down_delay_s:
            highest = max(highest, present, self.count)
        if not self.count:
            self._become(wanted, now)
        elif lowest > self.count and now - self._first_at >= up_delay_s:
            self._become(lowest, now)
        elif highest < self.count:
            self._become(highest, now)
        return self.count

    def hold(self, count: int, now: float) -> int:
        """Have this number at once: the bounds or the instances that are there demand it."""
        self._become(count, now)
        return self.count

    def _become(self, count: int, now: float) -> None:
        if count != self.count:
            self.count, self.since = count, now
