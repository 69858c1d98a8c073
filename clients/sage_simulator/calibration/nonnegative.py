"""Weighted least squares of few coefficients, none of them negative."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

from scheduler_svc.domain.prediction.linear_system import solve_symmetric

_SINGULAR = 1e-10  # a pivot this much smaller than its diagonal: the variables do not tell their coefficients apart

Row = tuple[Sequence[float], float, float]
"""The values of the variables, the measured value, the weight of its squared error."""


def solve_nonnegative(rows: Iterable[Row], variables: int) -> list[float]:
    """Return the coefficients with the least weighted squared error.

    It solves every choice of coefficients that are held at zero, 2^n of them, and takes the best without a negative
    one; so the result is exact.  Variables that are never anything but zero get the coefficient 0.
    """
    a = [[0.0] * variables for _ in range(variables)]
    b = [0.0] * variables
    for values, measured, weight in rows:
        for i, value in enumerate(values):
            if value:
                scaled = weight * value
                b[i] += scaled * measured
                row = a[i]
                for j in range(variables):
                    row[j] += scaled * values[j]
    usable = [i for i in range(variables) if a[i][i] > 0]
    best, least = [0.0] * variables, 0.0  # the error, less that of all coefficients at zero
    for count in range(1, len(usable) + 1):
        for free in combinations(usable, count):
            chosen = [[a[i][j] for j in free] for i in free]
            found = solve_symmetric(chosen, [b[i] for i in free], least_pivot=_SINGULAR)
            if found is None or min(found) < 0:
                continue
            error = -sum(coefficient * b[i] for i, coefficient in zip(free, found, strict=True))
            if error < least:
                least = error
                best = [0.0] * variables
                for i, coefficient in zip(free, found, strict=True):
                    best[i] = coefficient
    return best
