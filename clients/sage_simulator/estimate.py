"""A figure that several seeds gave: its mean and how far off the mean may be."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean, stdev

# 97.5 % quantiles of Student's t distribution by degrees of freedom, 1 to 30; beyond, the normal one is close.
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
_NORMAL = 1.960


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """The mean of a figure over seeds, and half the width of its 95 % confidence interval."""

    mean: float
    half_width: float | None  # None with one seed: nothing says how far off it is
    seeds: int  # that gave the figure

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Estimate | None:
        """Take the mean of the values that are there, by Student's t; None if there is none."""
        found = [each for each in values if each is not None]
        if not found:
            return None
        if len(found) == 1:
            return cls(mean=found[0], half_width=None, seeds=1)
        t = _T[len(found) - 2] if len(found) - 2 < len(_T) else _NORMAL
        return cls(mean=fmean(found), half_width=t * stdev(found) / math.sqrt(len(found)), seeds=len(found))
