"""The handles that a stream has used."""

from __future__ import annotations

from bisect import bisect_right

RANGES_LIMIT = 4_096
"""Ranges of used numbers: a client that counts its handles up makes one."""


class HandleNumbers:
    """Remembers every number that was used, as ranges."""

    def __init__(self) -> None:
        self._starts: list[int] = []  # ascending
        self._ends: list[int] = []  # of the same ranges, exclusive; less than the next start

    def why_not(self, number: int) -> str:
        """Return why a new handle may not have this number; empty if it may."""
        if not number:
            return "is 0"
        index = bisect_right(self._starts, number)
        if index and number < self._ends[index - 1]:
            return f"{number} was used before on this stream"
        if len(self._starts) >= RANGES_LIMIT and not self._touches(index, number):
            return f"{number} leaves a gap; handles that count up leave none, and {RANGES_LIMIT} are remembered"
        return ""

    def use(self, number: int) -> None:
        """Note that a number is used; ``why_not`` found nothing against it."""
        index = bisect_right(self._starts, number)
        joins_left = index > 0 and self._ends[index - 1] == number
        joins_right = index < len(self._starts) and self._starts[index] == number + 1
        if joins_left and joins_right:
            self._ends[index - 1] = self._ends.pop(index)
            del self._starts[index]
        elif joins_left:
            self._ends[index - 1] = number + 1
        elif joins_right:
            self._starts[index] = number
        else:
            self._starts.insert(index, number)
            self._ends.insert(index, number + 1)

    def _touches(self, index: int, number: int) -> bool:
        left = index > 0 and self._ends[index - 1] == number
        return left or (index < len(self._starts) and self._starts[index] == number + 1)
