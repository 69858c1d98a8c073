"""How many requests may yet miss their targets."""

from __future__ import annotations

from math import exp, inf

#: Share of requests that may miss their targets rather than take a further instance into use.
MISSED = 0.0075
#: Seconds over which requests are counted: one weighs 1/e of a new one after that.  As long as peaks are remembered:
#: what calm minutes spared, a peak may spend.
MEMORY_S = 300.0


class MissBudget:
    """Counts requests, and those that miss their targets, over about the last ``MEMORY_S`` seconds."""

    __slots__ = ("_at", "_missed", "_requests")

    def __init__(self) -> None:
        self._at = float("-inf")  # seconds on the scheduler's clock
        self._requests = self._missed = 0.0

    def add(self, now: float, *, requests: int = 0, missed: float = 0.0) -> None:
        """Count requests and misses."""
        if now > self._at:
            forget = exp((self._at - now) / MEMORY_S)
            self._requests *= forget
            self._missed *= forget
            self._at = now
        self._requests += requests
        self._missed += missed

    def forgive(self) -> None:
        """Forget all misses so far, not the requests."""
        self._missed = 0.0

    @property
    def left(self) -> float:
        """Requests that may miss their targets before more than ``MISSED`` of all do; negative: too many did."""
        return MISSED * self._requests - self._missed

    @property
    def spent(self) -> float:
        """Share of the misses allowed that have come; more than 1: too many."""
        allowed = MISSED * self._requests
        if not allowed:
            return inf if self._missed else 0.0
        return self._missed / allowed
