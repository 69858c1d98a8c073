"""Arrival processes: endless, ascending times in seconds, the first one a gap after 0."""

from __future__ import annotations

import random
from collections.abc import Iterator


def poisson_arrivals(rng: random.Random, requests_per_s: float) -> Iterator[float]:
    """Yield the arrivals of independent callers.  Raises ValueError unless the rate is above 0."""
    _check_above_zero(requests_per_s=requests_per_s)
    now_s = 0.0
    while True:
        now_s += rng.expovariate(requests_per_s)
        yield now_s


def gamma_arrivals(rng: random.Random, requests_per_s: float, coefficient_of_variation: float) -> Iterator[float]:
    """Yield arrivals whose gaps are gamma distributed.

    The coefficient of variation is the gaps' standard deviation by their mean: 1 is Poisson, above 1 bursty, below 1
    even.  Raises ValueError unless both are above 0.
    """
    _check_above_zero(requests_per_s=requests_per_s, coefficient_of_variation=coefficient_of_variation)
    shape = coefficient_of_variation**-2
    scale_s = 1 / (shape * requests_per_s)
    now_s = 0.0
    while True:
        now_s += rng.gammavariate(shape, scale_s)
        yield now_s


def on_off_arrivals(
    rng: random.Random, *, on_requests_per_s: float, off_requests_per_s: float, mean_on_s: float, mean_off_s: float
) -> Iterator[float]:
    """Yield Poisson arrivals at two rates that take turns, beginning with the on rate.

    The phases' lengths are exponential, so the mean rate is the mean of both rates weighted by the phases' mean
    lengths.  Raises ValueError unless all are above 0; the off rate may be 0.
    """
    _check_above_zero(on_requests_per_s=on_requests_per_s, mean_on_s=mean_on_s, mean_off_s=mean_off_s)
    if off_requests_per_s:
        _check_above_zero(off_requests_per_s=off_requests_per_s)
    now_s = 0.0
    while True:
        for rate, mean_s in ((on_requests_per_s, mean_on_s), (off_requests_per_s, mean_off_s)):
            end_s = now_s + rng.expovariate(1 / mean_s)
            # Poisson arrivals have no memory: a gap that crosses the end of the phase is drawn anew in the next one.
            while rate and (now_s := now_s + rng.expovariate(rate)) < end_s:
                yield now_s
            now_s = end_s


def _check_above_zero(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} must be a finite number above 0, got {value}")
