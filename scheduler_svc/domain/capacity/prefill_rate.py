"""How much prefill one instance was sent recently."""

from __future__ import annotations

from math import exp

#: Seconds over which the prefill that an instance is sent is averaged: a prompt weighs 1/e of a new one after that.
PREFILL_MEMORY_S = 10.0


class PrefillRate:
    """Seconds of prefill per second that an instance was sent recently."""

    __slots__ = ("_at", "value")

    def __init__(self) -> None:
        self.value = 0.0  # when it was aged last
        self._at = 0.0  # seconds on the scheduler's clock

    def age(self, now: float) -> None:
        """Have what was sent weigh what it weighs now."""
        if now > self._at:
            self.value *= exp((self._at - now) / PREFILL_MEMORY_S)
            self._at = now

    def add(self, prefill_s: float, now: float) -> None:
        """Note a prompt that is sent now and takes ``prefill_s`` seconds."""
        self.age(now)
        self.value += prefill_s / PREFILL_MEMORY_S
