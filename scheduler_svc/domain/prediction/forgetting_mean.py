"""A mean that forgets."""

from __future__ import annotations


class ForgettingMean:
    """An exponentially weighted mean: each value weighs ``forgetting`` times the next one."""

    __slots__ = ("_forgetting", "_sum", "_weight", "count")

    def __init__(self, forgetting: float) -> None:
        self._forgetting = forgetting
        self._sum = 0.0
        self._weight = 0.0
        self.count = 0  # values in all

    def add(self, value: float) -> None:
        """Take a value."""
        self._sum = self._forgetting * self._sum + value
        self._weight = self._forgetting * self._weight + 1
        self.count += 1

    @property
    def total(self) -> float:
        """The sum of the values by their weights."""
        return self._sum

    @property
    def weight(self) -> float:
        """The sum of the weights: the number of values while they are few."""
        return self._weight

    @property
    def value(self) -> float:
        """The mean; 0 before the first value."""
        return self._sum / self._weight if self.count else 0.0
