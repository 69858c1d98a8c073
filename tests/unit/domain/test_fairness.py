"""Equal work on equal instances is spread evenly."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract.policies.modelled_fleet import ModelledFleet, add_instance, make_core, make_facts, make_request

REQUESTS = 300

fair = pytest.mark.parametrize("policy", ["fifo", "priority"])


def spread(policy: str, *, max_running: int, arrivals: list[float], prompt: int = 32) -> list[int]:
    """Requests per instance after 300 equal requests on three equal instances."""
    core = make_core(policy)
    for n in range(3):
        add_instance(core, f"i{n}", facts=make_facts(max_running=max_running))
    fleet = ModelledFleet(core, heartbeat_s=1.0)
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
@settings(max_examples=8, deadline=None, derandomize=True, database=None)
@given(
    gaps=st.lists(st.sampled_from([0.0, 0.0, 0.003, 0.05, 0.4]), min_size=REQUESTS, max_size=REQUESTS),
    max_running=st.sampled_from([1, 2, 4, 16]),
    prompt=st.sampled_from([1, 500]),
)
def test_however_they_arrive(policy: str, gaps: list[float], max_running: int, prompt: int) -> None:
    arrivals = [sum(gaps[: n + 1]) for n in range(REQUESTS)]

    counts = spread(policy, max_running=max_running, arrivals=arrivals, prompt=prompt)

    assert max(counts) - min(counts) <= 1
