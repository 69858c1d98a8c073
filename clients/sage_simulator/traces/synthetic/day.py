"""Arrivals of a day: few at night, many during working hours."""

from __future__ import annotations

import random
from collections.abc import Iterator

#: Arrival rate at the beginning of each hour, as a share of the busiest one's.
HOURS = (
    *(0.22, 0.16, 0.12, 0.10, 0.10, 0.13, 0.22, 0.38, 0.58, 0.78, 0.92, 1.00),
    *(0.95, 0.97, 1.00, 0.96, 0.88, 0.74, 0.60, 0.52, 0.48, 0.44, 0.38, 0.30),
)
MEAN = sum(HOURS) / len(HOURS)
"""The mean rate as a share of the busiest hour's."""


def day_arrivals(rng: random.Random, requests_per_s: float, day_s: float) -> Iterator[float]:
    """Yield Poisson arrivals whose rate follows ``HOURS`` over ``day_s`` seconds, day after day.

    ``requests_per_s``: the mean rate.  Raises ValueError unless both are above 0.
    """
    if not (0 < requests_per_s < float("inf") and 0 < day_s < float("inf")):
        raise ValueError(f"{requests_per_s} requests per second in days of {day_s} s: both must be above 0")
    highest = requests_per_s / MEAN
    now_s = 0.0
    while True:
        now_s += rng.expovariate(highest)
        if rng.random() < _share(now_s / day_s):
            yield now_s


def _share(days: float) -> float:
    """Return the rate at a time as a share of the busiest hour's; between full hours it changes evenly."""
    hour, part = divmod(days % 1.0 * len(HOURS), 1.0)
    before, after = HOURS[int(hour)], HOURS[(int(hour) + 1) % len(HOURS)]
    return before + (after - before) * part
