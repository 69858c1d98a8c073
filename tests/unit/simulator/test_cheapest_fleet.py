"""The search for the cheapest mix of instances."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_simulator.cheapest_fleet import CheapestFleet, CheapestFleetSearch, Trial
from sage_simulator.fleet_search import Counts, FleetSearch, Kind
from sage_simulator.fleet_spec import FleetSpecError, InstanceModel
from sage_simulator.parallel_runs import Crew
from sage_simulator.policy_run import PolicyRun
from sage_simulator.workload import Workload


def kinds_of(*kinds: tuple[int, float]) -> list[Kind]:
    return [Kind(instance=InstanceModel(price_per_hour=price), most=most) for most, price in kinds]


def searched(search: FleetSearch, strengths: tuple[int, ...], needed: float) -> list[Counts]:
    """Play a search out where a mix is enough from a strength on; the mixes that were tried."""
    tried = []
    while (counts := search.next()) is not None:
        assert counts not in tried
        tried.append(counts)
        search.note(counts, enough=sum(map(int.__mul__, counts, strengths)) >= needed)
    return tried


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=3),
    st.integers(1, 40),
    st.integers(1, 10),
)
def test_no_mix_that_is_enough_is_cheaper_whatever_the_computed_load_says(
    kinds: list[tuple[int, int, int]], needed: int, guess: int
) -> None:
    strengths = tuple(strength for _, _, strength in kinds)
    search = FleetSearch(
        kinds_of(*((most, float(price)) for most, price, _ in kinds)),
        lambda counts: guess / sum(counts) if any(counts) else float("inf"),
        most_load=1e9,
    )
    searched(search, strengths, needed)
    enough = [
        sum(count * price for count, (_, price, _) in zip(counts, kinds, strict=True))
        for counts in product(*(range(most + 1) for most, _, _ in kinds))
        if any(counts) and sum(map(int.__mul__, counts, strengths)) >= needed
    ]
    assert (search.price(search.best) if search.best is not None else None) == min(enough, default=None)


def test_a_good_computed_load_saves_tries() -> None:
    search = FleetSearch(
        kinds_of((8, 2.0), (8, 3.0)), lambda counts: 8 / max(counts[0] + 2 * counts[1], 1e-9), most_load=1.25
    )
    tried = searched(search, (1, 2), 10)
    assert search.best == (0, 5)
    assert len(tried) <= 9


def test_mixes_that_are_too_small_or_too_many_are_refused() -> None:
    with pytest.raises(FleetSpecError, match=r"loaded to 2\.50 of their computed capacity"):
        FleetSearch(kinds_of((4, 1.0)), lambda counts: 10 / max(sum(counts), 1e-9), most_load=1.25)
    with pytest.raises(FleetSpecError, match="mixes"):
        FleetSearch(kinds_of((1_000, 1.0), (1_000, 1.0)), lambda _: 1.0, most_load=1.25)


def search(**values: object) -> CheapestFleetSearch:
    small, large = InstanceModel(max_running=8, price_per_hour=1.0), InstanceModel(speed=4.0, price_per_hour=9.0)
    return CheapestFleetSearch(
        kinds=[Kind(instance=small, most=5), Kind(instance=large, most=1)],
        policies=["fifo", "priority"],
        seeds=[1, 2],
        run=PolicyRun(workload=Workload(duration_s=20.0, ttft_target_s=1.0), fleet=(), policy="", rate=10.0),
        **values,  # type: ignore[arg-type]
    )


def found(search: CheapestFleetSearch) -> tuple[list[Trial], dict[str, CheapestFleet]]:
    with Crew(1) as crew:
        ends = list(search.find(crew))
    trials = [each for each in ends if isinstance(each, Trial)]
    return trials, {each.policy: each for each in ends if isinstance(each, CheapestFleet)}


def test_small_instances_win_where_they_are_cheaper_and_one_less_is_not_enough() -> None:
    trials, fleets = found(search())
    assert set(fleets) == {"fifo", "priority"}
    for fleet in fleets.values():
        assert fleet.complete
        assert fleet.best is not None
        assert fleet.best.counts[1] == 0
        assert fleet.best.enough
        assert fleet.best.price_per_hour == fleet.best.counts[0]
    assert len(trials) == sum(len(each.trials) for each in fleets.values())
    assert {each.gave.figures["in_target_share"].seeds for each in trials if each.gave.figures["in_target_share"]} == {
        2
    }


def test_trials_are_bounded_and_that_is_said() -> None:
    trials, fleets = found(search(most_trials=1))
    assert len(trials) == 2
    assert not any(each.complete for each in fleets.values())
