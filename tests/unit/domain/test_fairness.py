"""Equal work on equal instances is spread evenly."""

from __future__ import annotations

from itertools import accumulate
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract.policies.modelled_fleet import ModelledFleet, add_instance, make_facts, make_request, make_scheduler

REQUESTS = 300

fair = pytest.mark.parametrize("policy", ["fifo", "priority", "slo_aware"])


def spread(policy: str, *, max_running: int, arrivals: list[float], prompt: int = 32) -> list[int]:
    """Requests per instance after 300 equal requests on three equal instances."""
    scheduler = make_scheduler(policy)
    for n in range(3):
        add_instance(scheduler, f"i{n}", facts=make_facts(max_running=max_running))
    fleet = ModelledFleet(scheduler, heartbeat_s=1.0)
    for n, at in enumerate(arrivals):
        fleet.arrive(make_request(n, arrived_at=at, prompt=prompt))
    fleet.run()
    assert sum(fleet.ended.values()) == len(arrivals)
    return [fleet.by_instance[f"i{n}"] for n in range(3)]


@fair
@pytest.mark.parametrize("max_running", [1, 4, 64])
def test_all_at_once(policy: str, max_running: int) -> None:
    counts = spread(policy, max_running=max_running, arrivals=[0.0] * REQUESTS)

    assert max(counts) - min(counts) <= 1


@fair
@settings(max_examples=12, deadline=None, derandomize=True, database=None)
@given(
    gap_s=st.floats(0, 0.5),
    max_running=st.sampled_from([1, 2, 4, 16]),
    prompt=st.sampled_from([1, 500]),
)
def test_at_an_even_pace(policy: str, gap_s: float, max_running: int, prompt: int) -> None:
    arrivals = [n * gap_s for n in range(REQUESTS)]

    counts = spread(policy, max_running=max_running, arrivals=arrivals, prompt=prompt)

    assert max(counts) - min(counts) <= 1


@fair
@pytest.mark.parametrize("seed", range(6))
def test_in_random_bursts(policy: str, seed: int) -> None:
    """Queues at the engines get out of step, so predicted starts truly differ, and the shortest wins over the count."""
    random = Random(seed)
    arrivals = list(accumulate(random.choice([0.0, 0.0, 0.003, 0.05, 0.4]) for _ in range(REQUESTS)))

    counts = spread(policy, max_running=random.choice([1, 2, 4]), arrivals=arrivals)

    assert max(counts) - min(counts) <= 4
