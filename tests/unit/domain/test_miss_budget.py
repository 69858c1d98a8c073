"""How many requests may yet miss their targets."""

from __future__ import annotations

from math import exp, inf

import pytest

from scheduler_svc.domain.objectives.miss_budget import MEMORY_S, MISSED, MissBudget


def test_three_requests_in_four_hundred_may_miss() -> None:
    budget = MissBudget()
    budget.add(0.0, requests=400)
    left = [budget.left]
    budget.add(0.0, missed=4.0)

    assert [*left, budget.left] == pytest.approx([3.0, -1.0])
    assert budget.spent == pytest.approx(4 / 3)


def test_what_was_long_ago_counts_less() -> None:
    budget = MissBudget()
    budget.add(0.0, requests=400, missed=6.0)

    budget.add(MEMORY_S, requests=400)

    assert budget.left == pytest.approx(400 * MISSED * (1 + exp(-1)) - 6 * exp(-1))


def test_a_miss_before_any_request_is_too_many() -> None:
    budget = MissBudget()
    fresh = budget.spent
    budget.add(0.0, missed=1.0)

    assert (fresh, budget.spent) == (0.0, inf)


def test_what_is_forgiven_leaves_the_requests_counted() -> None:
    budget = MissBudget()
    budget.add(0.0, requests=400, missed=6.0)

    budget.forgive()

    assert (budget.left, budget.spent) == pytest.approx((3.0, 0.0))
