"""A number of instances that follows wishes after a while."""

from __future__ import annotations

from collections import deque


class DelayedCount:
    """Rises to what was wished throughout the up delay, and falls to the most that was wished in the down delay."""

    __slots__ = ("_first_at", "_highest", "_lowest", "count", "since")

    def __init__(self, count: int, now: float) -> None:
        self.count = count
        self.since = now  # when the count changed last, seconds on the scheduler's clock
        self._first_at = now
        # Wishes with their times.  A wish goes when a later one is as high, or as low: so each number is there once.
        self._highest: deque[tuple[float, int]] = deque()  # of the down delay; the first is the highest
        self._lowest: deque[tuple[float, int]] = deque()  # of the up delay; the first is the lowest

    def wish(self, wanted: int, now: float, *, up_delay_s: float, down_delay_s: float, present: int) -> int:
        """Take a wish and return the number to have.

        ``present``: instances there are.  In the first ``down_delay_s`` seconds none of them goes, those that come back
        one after the other included: a scheduler that starts anew knows nothing of the load yet.  From zero the number
        rises at once.
        """
        highest, lowest = self._extremes(wanted, now, up_delay_s, max(up_delay_s, down_delay_s))
        if now - self._first_at < down_delay_s:
            self._become(max(self.count, present), now)
            highest = max(highest, self.count)
        if not self.count:
            self._become(wanted, now)
        elif lowest > self.count and now - self._first_at >= up_delay_s:
            self._become(lowest, now)
        elif highest < self.count:
            self._become(highest, now)
        return self.count

    def shift(self, by: int) -> None:
        """Move the number and all wishes by so many instances: they came from, or went to, another number."""
        self.count = max(0, self.count + by)
        self._highest = deque((at, max(0, wish + by)) for at, wish in self._highest)
        self._lowest = deque((at, max(0, wish + by)) for at, wish in self._lowest)

    def _extremes(self, wanted: int, now: float, up_delay_s: float, down_delay_s: float) -> tuple[int, int]:
        """Enter a wish, and return the highest of the down delay and the lowest of the up delay."""
        while self._highest and self._highest[-1][1] <= wanted:
            self._highest.pop()
        while self._lowest and self._lowest[-1][1] >= wanted:
            self._lowest.pop()
        for wishes, delay_s in ((self._highest, down_delay_s), (self._lowest, up_delay_s)):
            wishes.append((now, wanted))
            while wishes[0][0] < now - delay_s:
                wishes.popleft()
        return self._highest[0][1], self._lowest[0][1]

    def _become(self, count: int, now: float) -> None:
        if count != self.count:
            self.count, self.since = count, now
