"""A number follows wishes after a while, and a forecast the load's rise."""

from __future__ import annotations

import pytest

from scheduler_svc.domain.scaling.delayed_count import DelayedCount
from scheduler_svc.domain.scaling.load_trend import LoadTrend


class Count:
    """A count that begins at a number, with an up delay of 10 s and a down delay of 100 s."""

    def __init__(self, count: int, *, known: bool = True) -> None:
        self.count = DelayedCount(count, -1_000.0 if known else 0.0)

    def wish(self, wanted: int, now: float, present: int = 0) -> int:
        return self.count.wish(wanted, now, up_delay_s=10.0, down_delay_s=100.0, present=present)


def test_it_rises_once_more_was_wanted_throughout_the_up_delay() -> None:
    count = Count(1)
    assert [count.wish(w, at) for at, w in ((0.0, 1), (5.0, 3), (10.0, 2), (15.0, 3), (20.0, 3))] == [1, 1, 1, 2, 2]
    assert count.wish(3, 26.0) == 3


def test_it_falls_to_the_most_that_was_wanted_in_the_down_delay() -> None:
    count = Count(4)
    count.wish(4, 0.0)
    assert count.wish(1, 10.0) == 4
    assert count.wish(2, 60.0) == 4
    assert count.wish(1, 101.0) == 2, "two were wanted at 60 s"
    assert count.wish(1, 161.0) == 1


def test_from_zero_it_rises_at_once() -> None:
    assert Count(0).wish(1, 0.0) == 1


def test_a_scheduler_that_starts_anew_removes_nothing_before_it_knows_the_load() -> None:
    count = Count(1, known=False)
    assert count.wish(1, 1.0, present=2) == 2, "instances that come back count, one after the other"
    assert count.wish(1, 20.0, present=4) == 4
    assert count.wish(1, 50.0, present=3) == 4, "one that failed is to be replaced"
    assert count.wish(1, 151.0, present=4) == 1


def test_a_rise_is_carried_on_and_a_fall_is_not() -> None:
    rising, falling = LoadTrend(100.0), LoadTrend(100.0)
    for at in range(0, 101, 10):
        rising.add(1.0 + at / 100, float(at))
        falling.add(2.0 - at / 100, float(at))
    assert rising.forecast(50.0) == pytest.approx(2.5)
    assert falling.forecast(50.0) == pytest.approx(1.0)


def test_a_trend_that_is_looked_at_often_spans_as_long() -> None:
    """As many samples as are kept, taken as they come, would span too little of the time to say anything."""
    trend = LoadTrend(300.0)
    for n in range(1_501):
        trend.add(1.0 + n / 1_500, n / 5)
    assert trend.forecast(60.0) == pytest.approx(2.2, rel=0.01)


def test_a_number_that_is_looked_at_often_falls_as_late() -> None:
    count = Count(4)
    count.wish(4, 0.0)
    assert {count.wish(1, n / 100) for n in range(1, 10_001)} == {4}
    assert count.wish(1, 101.0) == 1


def test_a_forecast_is_at_most_twice_the_load() -> None:
    trend = LoadTrend(100.0)
    for at in range(0, 101, 10):
        trend.add(at / 100, float(at))
    assert trend.forecast(1_000.0) == pytest.approx(2.0)


def test_little_that_was_seen_is_no_trend() -> None:
    trend = LoadTrend(100.0)
    assert trend.forecast(50.0) == 0.0
    trend.add(1.0, 0.0)
    trend.add(2.0, 10.0)
    assert trend.forecast(50.0) == 2.0


def test_what_is_older_than_the_span_is_forgotten() -> None:
    trend = LoadTrend(100.0)
    for at, load in ((0.0, 9.0), (100.0, 1.0), (150.0, 1.0), (200.0, 1.0)):
        trend.add(load, at)
    assert trend.forecast(100.0) == 1.0
