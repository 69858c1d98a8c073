"""Margins cover what predictions get wrong."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler_svc.domain.prediction.margin import Margin, StartDelay


@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(bias=st.floats(0.9, 1.5), spread=st.floats(0.01, 0.2), seed=st.integers(0, 99))
def test_a_margin_covers_nearly_all_that_is_measured(bias: float, spread: float, seed: int) -> None:
    random, margin = Random(seed), Margin()
    beyond = 0
    for n in range(6_000):
        measured = bias * random.lognormvariate(0, spread)
        beyond += n >= 3_000 and measured > margin.value
        margin.add(1.0, measured)

    assert beyond / 3_000 < 0.04


def test_a_margin_is_no_wider_than_the_errors_ask_for() -> None:
    random, margin = Random(1), Margin()
    for _ in range(6_000):
        margin.add(0.02, 0.02 * random.uniform(0.9, 1.1))

    assert margin.value == pytest.approx(1.1, abs=0.06)


@given(times=st.lists(st.tuples(st.floats(0, 1e3), st.floats(0, 1e3)), max_size=200))
def test_a_margin_stays_within_its_bounds(times: list[tuple[float, float]]) -> None:
    margin = Margin()
    for predicted, measured in times:
        margin.add(predicted, measured)

        assert 1 <= margin.value <= 3


def test_what_says_little_changes_little() -> None:
    telling, short = Margin(), Margin()
    telling.add(1.0, 9.0)
    short.add(1.0, 9.0, weight=0.1)

    assert Margin().value < short.value < telling.value


def test_a_start_delay_is_the_mean_of_what_first_tokens_came_later_than_predicted() -> None:
    delay = StartDelay()
    assert delay.value == 0
    for measured in (0.14, 0.16, 0.15):
        delay.add(0.1, measured, step_s=0.04)
    assert delay.value == pytest.approx(0.05, rel=0.02)


def test_one_first_token_that_is_very_late_counts_as_three_steps() -> None:
    delay = StartDelay()
    delay.add(0.1, 30.0, step_s=0.04)
    assert delay.value == pytest.approx(0.12)


def test_a_start_delay_is_never_negative() -> None:
    delay = StartDelay()
    delay.add(0.1, 0.05, step_s=0.04)
    assert delay.value == 0
