"""Percentiles of times: rounded up by a tenth at most, and addable."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler_svc.control.watching.latencies import LONGEST_S, SHORTEST_S, STEP, Latencies


def of(*times: float) -> Latencies:
    found = Latencies()
    for took_s in times:
        found.note(took_s)
    return found


@given(st.lists(st.floats(SHORTEST_S, LONGEST_S), min_size=1, max_size=50), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_percentile_is_rounded_up_by_a_step_at_most(times: list[float], share: float) -> None:
    exact = sorted(times)[max(0, -(-int(share * 100) * len(times) // 100) - 1)]
    assert exact * 0.999999 <= of(*times).percentile(share) <= exact * STEP * 1.000001


def test_sums_are_what_was_counted_together() -> None:
    together = of(0.1, 0.2)
    together.add(of(5.0))
    assert together.count == 3
    assert together.percentile(0.99) == pytest.approx(of(5.0).percentile(0.5))


def test_times_that_cannot_be_are_counted_as_the_shortest_and_the_longest() -> None:
    assert of(-1.0, 0.0).percentile(0.99) == pytest.approx(SHORTEST_S, rel=0.1)
    assert of(float("inf")).percentile(0.5) == pytest.approx(LONGEST_S, rel=0.1)
    assert Latencies().percentile(0.5) == 0.0
