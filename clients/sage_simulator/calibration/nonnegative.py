"""Weighted least squares of few coefficients, none of them negative."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

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
            found = _solve([[a[i][j] for j in free] for i in free], [b[i] for i in free])
            if found is None or min(found) < 0:
                continue
            error = -sum(coefficient * b[i] for i, coefficient in zip(free, found, strict=True))
            if error < least:
                least = error
                best = [0.0] * variables
                for i, coefficient in zip(free, found, strict=True):
                    best[i] = coefficient
    return best


_SINGULAR = 1e-10  # a pivot this much smaller than its diagonal: the variables do not tell their coefficients apart


def _solve(a: list[list[float]], b: list[float]) -> list[float] | None:
    """Solve a symmetric system by Gaussian elimination; None if it is singular.  ``a`` and ``b`` are used up."""
    n = len(b)
    sizes = [a[k][k] for k in range(n)]
    for k in range(n):
        if a[k][k] <= _SINGULAR * sizes[k]:
            return None
        for i in range(k + 1, n):
            factor = a[i][k] / a[k][k]
            for j in range(k, n):
                a[i][j] -= factor * a[k][j]
            b[i] -= factor * b[k]
    x = [0.0] * n
    for k in reversed(range(n)):
        x[k] = (b[k] - sum(a[k][j] * x[j] for j in range(k + 1, n))) / a[k][k]
    return x
