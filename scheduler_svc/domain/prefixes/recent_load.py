"""How much work each instance was given recently."""

from __future__ import annotations

from collections.abc import Iterable
from math import exp

#: Seconds after which work weighs 1/e of new work.
LOAD_MEMORY_S = 30.0
_LARGEST_EXPONENT = 50.0


class RecentLoad:
    """Seconds of engine time that each instance was given, older work weighing less.

    Weights grow instead of the sums shrinking, so that reading a sum computes nothing.
    """

    __slots__ = ("_begin", "_seconds", "_weight")

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}  # weighted, by instance id
        self._begin = 0.0
        self._weight = 1.0  # of work given now

    def add(self, instance_id: str, seconds: float, now: float) -> None:
        """Note work of so many seconds that an instance was given now."""
        exponent = (now - self._begin) / LOAD_MEMORY_S
        if exponent > _LARGEST_EXPONENT:
            shrink = exp(-exponent)
            self._seconds = {name: value * shrink for name, value in self._seconds.items()}
            self._begin, exponent = now, 0.0
        self._weight = exp(exponent)
        self._seconds[instance_id] = self._seconds.get(instance_id, 0.0) + seconds * self._weight

    def forget(self, instance_id: str) -> None:
        """Drop what an instance was given."""
        self._seconds.pop(instance_id, None)

    def of(self, instance_id: str) -> float:
        """Return an instance's load, comparable with other instances' of the same moment."""
        return self._seconds.get(instance_id, 0.0)

    def of_all(self, instance_ids: Iterable[str]) -> list[float]:
        """Return the load of each of these instances."""
        get = self._seconds.get
        return [get(each, 0.0) for each in instance_ids]

    def of_share(self, share: float) -> float:
        """Return the load of an instance that was given this share of its time lately."""
        return share * LOAD_MEMORY_S * self._weight
