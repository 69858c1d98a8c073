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

    @property
    def empty(self) -> bool:
        """Whether no instance is READY or starts."""
        return not self.ready + self.starting

    def with_change(self, by: int) -> float:
        """Return the pressure once those that start are READY and ``by`` instances have come, or gone if negative.

        The work is taken to be spread evenly.  A side without an instance has infinite pressure.
        """
        count = self.ready + self.starting + by
        if count <= 0 or not self.ready:
            return inf if count <= 0 else 0.0
        return self.pressure * self.ready / count
