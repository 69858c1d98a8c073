"""The rate at which a queue drains is measured while requests wait, and who comes later and goes first counts."""

from __future__ import annotations

import pytest

from scheduler_svc.domain.prediction.queue_drain import ENOUGH, QueueDrain
from scheduler_svc.domain.request import Priority


def drained(every_s: float, count: int = 100) -> QueueDrain:
    drain = QueueDrain()
    for number in range(count + 1):
        drain.passed(1, 5, number * every_s)
    return drain


def test_placements_while_others_wait_are_counted() -> None:
    assert drained(0.5).placement_s(50.0) == pytest.approx(0.5)


def test_several_placements_of_one_pass_count_each() -> None:
    drain = QueueDrain()
    for second in range(60):
        drain.passed(4, 5, float(second))
    assert drain.placement_s(59.0) == pytest.approx(0.25)


def test_time_in_which_nobody_waits_does_not_count() -> None:
    drain = drained(0.5)
    drain.passed(5, 0, 50.5)
    for second in range(1_000, 2_000, 100):
        drain.passed(1, 0, float(second))
    assert drain.placement_s(2_000.0) == pytest.approx(0.5, rel=0.2)


def test_too_few_placements_say_nothing() -> None:
    assert QueueDrain().placement_s(0.0) is None
    assert drained(0.5, count=int(ENOUGH) - 2).placement_s(10.0) is None


def test_a_queue_that_stands_still_is_told_longer_waits() -> None:
    assert (drained(0.1).placement_s(10.0 + 300.0) or 0) > 1.0


def test_a_change_of_pace_is_followed() -> None:
    drain = drained(0.1, count=600)
    for number in range(1, 121):
        drain.passed(1, 5, 60.0 + number)
    assert drain.placement_s(180.0) == pytest.approx(1.0, rel=0.1)


def arriving(per_s: float, lead_s: float) -> QueueDrain:
    """Requests of class HIGH, due at once, and LOW ones that are due ``lead_s`` later."""
    drain = QueueDrain()
    for number in range(1, int(100 * per_s)):
        drain.arrived(Priority.HIGH, number / per_s, number / per_s)
        if number % 10 == 0:
            drain.arrived(Priority.LOW, number / per_s + lead_s, number / per_s)
    return drain


def test_who_comes_later_and_goes_first_makes_the_wait_longer() -> None:
    drain = arriving(per_s=5.0, lead_s=1_000.0)
    assert drain.wait_s(9, 0.1, Priority.HIGH, 100.0) == pytest.approx(1.0)
    assert drain.wait_s(9, 0.1, Priority.LOW, 100.0) == pytest.approx(10 / (10 - 5), rel=0.05)


def test_others_overtake_only_until_the_request_is_due() -> None:
    drain = arriving(per_s=20.0, lead_s=3.0)
    assert drain.wait_s(9, 0.1, Priority.LOW, 100.0) == pytest.approx((10 + 20 * 3) / 10, rel=0.05)


def test_a_class_that_nobody_asked_for_yet_waits_for_those_before_it() -> None:
    assert arriving(per_s=5.0, lead_s=3.0).wait_s(9, 0.1, Priority.BACKGROUND, 100.0) == pytest.approx(1.0)


def test_another_ordering_begins_anew() -> None:
    drain = arriving(per_s=5.0, lead_s=1_000.0)
    drain.reordered()
    assert drain.wait_s(9, 0.1, Priority.LOW, 100.0) == pytest.approx(1.0)
