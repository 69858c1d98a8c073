"""One side of a model whose requests are split: its instances and their pressure."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """The READY instances that take one leg of split requests, and how much they have to do."""

    name: str  # prefill or decode
    ready: int
    starting: int
    pressure: float  # of the READY instances; 1 is what they can just carry
    why: str = ""  # what the pressure comes from, in words
    stood_in: bool = False  # hybrid instances take its leg, too

    @property
    def empty(self) -> bool:
        """Whether no instance is READY or starts, and no hybrid one stands in."""
        return not self.ready + self.starting and not self.stood_in

    def with_more(self, more: int) -> float:
        """Return the pressure once those that start are READY and ``more`` instances have come.

        The work is taken to be spread evenly.  An empty side has infinite pressure.
        """
        if self.empty:
            return 0.0 if more else inf
        return self.pressure * self.ready / (self.ready + self.starting + more) if self.ready else 0.0

    @property
    def without_one(self) -> float:
        """The pressure with one READY instance less: those that start are no help yet.  Infinite without any left."""
        return self.pressure * self.ready / (self.ready - 1) if self.ready > 1 else inf
