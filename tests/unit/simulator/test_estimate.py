"""Means over seeds and their 95 % intervals."""

from __future__ import annotations

import random
from statistics import fmean

import pytest

from sage_simulator.estimate import Estimate


def test_the_interval_of_three_values_is_students() -> None:
    found = Estimate.of([1.0, 2.0, 3.0])
    assert found is not None
    assert (found.mean, found.seeds) == (2.0, 3)
    assert found.half_width == pytest.approx(4.303 / 3**0.5)


def test_one_value_has_no_interval_and_no_value_no_estimate() -> None:
    assert Estimate.of([5.0, None]) == Estimate(mean=5.0, half_width=None, seeds=1)
    assert Estimate.of([None]) is None


@pytest.mark.parametrize("seeds", [2, 5, 40])
def test_the_interval_holds_the_truth_in_95_of_100_cases(seeds: int) -> None:
    source = random.Random(1)
    held = [
        abs(found.mean) <= (found.half_width or 0)
        for found in (Estimate.of([source.gauss(0, 1) for _ in range(seeds)]) for _ in range(4_000))
        if found is not None
    ]
    assert fmean(held) == pytest.approx(0.95, abs=0.015)
