"""Distributions of lengths in tokens."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Protocol


class Lengths(Protocol):
    """A distribution of lengths."""

    def draw(self, rng: random.Random) -> int:
        """Return a length in tokens, at least 1."""
        ...


@dataclass(frozen=True, slots=True)
class FixedLength:
    """One length for all.  Raises ValueError below 1."""

    tokens: int

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise ValueError(f"a length must be at least 1 token, got {self.tokens}")

    def draw(self, rng: random.Random) -> int:
        """Return the length."""
        return self.tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class LognormalLengths:
    """A lognormal distribution, cut at its bounds: nothing piles up there.

    Raises ValueError unless 1 <= least <= median <= most and sigma > 0.
    """

    median: float  # tokens, of the distribution before the cut
    sigma: float  # standard deviation of the length's logarithm
    least: int = 1  # tokens
    most: int  # tokens

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most:
            raise ValueError(f"lengths must be from 1 token on, got {self.least} to {self.most}")
        if not self.least <= self.median <= self.most:
            raise ValueError(f"the median must be from {self.least} to {self.most} tokens, got {self.median:g}")
        if not 0 < self.sigma < math.inf:
            raise ValueError(f"sigma must be a finite number above 0, got {self.sigma}")

    def draw(self, rng: random.Random) -> int:
        """Return a length in tokens, by the inverse of the distribution, so that every draw takes one random number."""
        logarithm, low, high = _cut(self)
        share = min(max(rng.uniform(low, high), 1e-15), 1 - 1e-15)
        return min(max(round(math.exp(logarithm.inv_cdf(share))), self.least), self.most)


@lru_cache(maxsize=64)
def _cut(lengths: LognormalLengths) -> tuple[NormalDist, float, float]:
    """Return the distribution of the logarithm, and the shares of it below the two bounds."""
    logarithm = NormalDist(math.log(lengths.median), lengths.sigma)
    return logarithm, logarithm.cdf(math.log(lengths.least - 0.5)), logarithm.cdf(math.log(lengths.most + 0.5))
