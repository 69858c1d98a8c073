"""The search for the highest load, on a stand-in for the simulation and on a small fleet."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest

from sage_simulator.fleet_capacity import load_capacity
from sage_simulator.fleet_spec import InstanceModel
from sage_simulator.highest_load import LoadSearch
from sage_simulator.policy_run import PolicyRun
from sage_simulator.workload import Workload


class Steps:
    """A run whose requests are all in target up to a rate, and half of them beyond."""

    policy, seed = "fifo", 1

    def __init__(self, highest: float, rate: float | None = None) -> None:
        self.highest, self.rate = highest, rate

    def __replace__(self, /, rate: float) -> Steps:
        return Steps(self.highest, rate)

    def __call__(self) -> Any:
        return SimpleNamespace(in_target_share=1.0 if (self.rate or 0) <= self.highest else 0.5)


def search(highest: float, monkeypatch: pytest.MonkeyPatch, **values: Any) -> LoadSearch:
    monkeypatch.setattr("sage_simulator.highest_load.replace", lambda run, rate: run.__replace__(rate=rate))
    return LoadSearch(run=Steps(highest * 10.0), capacity_per_s=10.0, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("highest", [0.05, 0.5, 0.8, 0.93, 1.7, 9.0])
def test_the_highest_load_is_found_to_the_resolution(highest: float, monkeypatch: pytest.MonkeyPatch) -> None:
    found = search(highest, monkeypatch, resolution=0.01)()
    assert highest - 0.01 <= found.load <= highest
    assert [each.load for each in found.points] == sorted(each.load for each in found.points)
    assert len(found.points) < 25


def test_a_fleet_that_never_keeps_enough_has_no_highest_load(monkeypatch: pytest.MonkeyPatch) -> None:
    found = search(0.0, monkeypatch)()
    assert (found.best, found.load) == (None, 0.0)


def test_a_fleet_that_always_keeps_enough_is_not_searched_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    assert search(1e9, monkeypatch)().load >= 16.0


@pytest.mark.parametrize("values", [{"share": 0.0}, {"share": 1.1}, {"resolution": 0.0}])
def test_bounds_are_checked(values: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        search(1.0, monkeypatch, **values)


@cache
def small_search() -> LoadSearch:
    fleet = (InstanceModel(max_running=8),) * 2
    workload = Workload(duration_s=60.0, ttft_target_s=1.0)
    capacity = load_capacity(fleet, workload.sample())
    run = PolicyRun(workload=workload, fleet=fleet, policy="fifo")
    return LoadSearch(run=run, capacity_per_s=capacity, resolution=0.1)


def test_a_fleet_keeps_its_targets_up_to_about_its_capacity() -> None:
    found = small_search()()
    assert found.best is not None
    assert found.best.summary.in_target_share >= 0.9
    assert 0.4 < found.load < 1.3


def test_a_search_gives_the_same_result_each_time_and_asks_more_of_a_higher_share() -> None:
    assert small_search()() == small_search()()
    assert replace(small_search(), share=0.99)().load <= small_search()().load
