"""How much work each instance was given recently."""

from __future__ import annotations

import pytest

from scheduler_svc.domain.prefixes.recent_load import LOAD_MEMORY_S, RecentLoad


def test_work_of_the_same_time_adds_up() -> None:
    load = RecentLoad()
    load.add("a", 1.0, 5.0)
    load.add("a", 2.0, 5.0)
    load.add("b", 1.0, 5.0)

    assert load.of("a") == pytest.approx(3 * load.of("b"))
    assert load.of("nobody") == 0


def test_older_work_weighs_less() -> None:
    load = RecentLoad()
    load.add("a", 1.0, 0.0)
    load.add("b", 1.0, LOAD_MEMORY_S)

    assert load.of("b") == pytest.approx(2.718 * load.of("a"), rel=1e-3)


def test_a_busy_instance_has_the_load_of_its_share() -> None:
    load = RecentLoad()
    for tenth in range(10_000):
        load.add("half", 0.05, tenth / 10)

    assert load.of("half") == pytest.approx(load.of_share(0.5), rel=0.01)


def test_weights_stay_finite_over_days() -> None:
    load = RecentLoad()
    for hour in range(200):
        load.add("a", 2.0, hour * 3_600.0)
        load.add("b", 1.0, hour * 3_600.0)

    assert load.of("a") == pytest.approx(2 * load.of("b"))
    assert 0 < load.of("b") < float("inf")


def test_a_forgotten_instance_has_none() -> None:
    load = RecentLoad()
    load.add("a", 1.0, 0.0)
    load.forget("a")

    assert load.of("a") == 0
