"""Solves small systems of linear equations."""

from __future__ import annotations

from math import fsum


def solve_symmetric(a: list[list[float]], b: list[float], *, least_pivot: float = 0.0) -> list[float] | None:
    """Solve a symmetric system by Gaussian elimination; ``a`` and ``b`` are used up.

    None if it is singular: a pivot is at most ``least_pivot`` times its diagonal, so that the variables do not tell
    their coefficients apart.
    """
    n = len(b)
    sizes = [a[k][k] for k in range(n)]
    for k in range(n):
        if a[k][k] <= least_pivot * sizes[k]:
            return None
        for i in range(k + 1, n):
            factor = a[i][k] / a[k][k]
            for j in range(k, n):
                a[i][j] -= factor * a[k][j]
            b[i] -= factor * b[k]
    x = [0.0] * n
    for k in reversed(range(n)):
        x[k] = (b[k] - fsum(a[k][j] * x[j] for j in range(k + 1, n))) / a[k][k]
    return x
