"""The search for the highest load with enough requests in target."""

from __future__ import annotations

import pytest

from tests.bench.policies.goodput import goodput, next_load
from tests.unit.bench.policies.made_up import LOADS


def test_goodput_lies_between_the_last_load_with_enough_and_the_next() -> None:
    assert goodput(LOADS, {0.5: 1.0, 1.0: 0.95, 1.5: 0.85}.get) == pytest.approx(1.25)


def test_goodput_is_the_highest_load_if_all_have_enough() -> None:
    assert goodput(LOADS, lambda load: 0.9) == 1.5


def test_goodput_below_the_grid_is_taken_from_load_0() -> None:
    assert goodput(LOADS, lambda load: 0.7) == pytest.approx(0.5 / 3)


def test_goodput_is_not_known_between_loads_that_are_no_neighbours() -> None:
    assert goodput(LOADS, {0.5: 1.0, 1.5: 0.85}.get) is None


def test_the_least_load_without_enough_decides() -> None:
    assert goodput(LOADS, {0.5: 1.0, 1.0: 0.89, 1.5: 0.95}.get) == pytest.approx(0.5 + 0.5 * 0.1 / 0.11)


def searched(most: float, expected: float | None = None) -> list[float]:
    """Loads of a grid of 16 that a search asks for, where loads up to ``most`` have enough."""
    grid = [float(n) for n in range(16)]
    known: dict[float, float] = {}
    while (load := next_load(grid, known.get, expected)) is not None:
        assert load not in known
        known[load] = 1.0 if load <= most else 0.0
    assert goodput(grid, known.get) == pytest.approx(most + 0.1 if most < 15 else 15)
    return list(known)


@pytest.mark.parametrize("most", range(16))
def test_a_search_for_goodput_runs_few_loads_of_the_grid(most: float) -> None:
    assert len(searched(most)) <= 5


@pytest.mark.parametrize("most", range(15))
def test_a_search_that_begins_at_the_right_place_runs_two_loads(most: float) -> None:
    assert searched(most, most + 0.5) == [most, most + 1]


@pytest.mark.parametrize("expected", [-1.0, 0.0, 6.9, 7.0, 15.0, 99.0])
def test_a_search_that_begins_at_the_wrong_place_finds_the_goodput(expected: float) -> None:
    assert len(searched(11, expected)) <= 6
