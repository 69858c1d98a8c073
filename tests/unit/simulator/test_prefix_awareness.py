"""Simulations of loads whose prompts begin alike, with and without prefix-awareness."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from functools import cache
from statistics import mean

import pytest

from sage_simulator.fleet_spec import InstanceModel
from sage_simulator.simulation import Simulation, SimulationResult
from sage_simulator.simulation_settings import SimulationSettings
from sage_simulator.traced_request import TracedRequest
from sage_simulator.traces.synthetic.arrivals import poisson_arrivals
from sage_simulator.traces.synthetic.lengths import LognormalLengths
from sage_simulator.traces.synthetic.sessions import SessionShape, multi_turn_sessions
from sage_simulator.traces.synthetic.tenants import Tenant
from scheduler_svc.domain.decision import Decision
from scheduler_svc.domain.prefixes.settings import PrefixSettings
from scheduler_svc.domain.settings import SchedulerSettings

FLEET = (InstanceModel(),) * 4
POLICIES = ("fifo", "priority", "slo_aware", "adaptive")


@cache
def conversations() -> tuple[TracedRequest, ...]:
    """Long conversations of many turns, which all begin with one of two system prompts."""
    rng = random.Random(3)
    shape = SessionShape(
        texts=LognormalLengths(median=1_500, sigma=0.6, most=8_000),
        outputs=LognormalLengths(median=100, sigma=0.6, most=500),
        mean_turns=8,
        mean_think_s=10,
        most_prompt_tokens=40_000,
    )
    tenants = [Tenant(name="a", weight=3, system_prompt_tokens=2_000), Tenant(name="b", system_prompt_tokens=4_000)]
    return tuple(multi_turn_sessions(rng, poisson_arrivals(rng, 0.5), 500, shape, tenants))


@cache
def simulate(policy: str, *, aware: bool, cache_events: bool = True) -> SimulationResult:
    settings = SchedulerSettings(policy=policy, prefix=PrefixSettings(aware=aware))
    fleet = [InstanceModel(cache_events=cache_events)] * len(FLEET)
    return Simulation(conversations(), fleet, SimulationSettings(scheduler=settings)).run()


def mean_ttft(result: SimulationResult) -> float:
    return mean(each.ttft_s for each in result.outcomes if each.ttft_s is not None)


def largest_share(loads: Sequence[float]) -> float:
    return max(loads) / mean(loads)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("cache_events", [True, False])
def test_first_tokens_of_conversations_come_in_half_the_time(policy: str, cache_events: bool) -> None:
    without, aware = simulate(policy, aware=False), simulate(policy, aware=True, cache_events=cache_events)

    assert mean_ttft(aware) <= 0.5 * mean_ttft(without)


@pytest.mark.parametrize("policy", POLICIES)
def test_no_instance_has_more_than_one_and_a_half_times_the_mean_load(policy: str) -> None:
    result = simulate(policy, aware=True)

    tokens: Counter[str] = Counter()
    for each in result.outcomes:
        tokens[each.instance_id] += each.request.prompt_tokens
    assert len(tokens) == len(FLEET)
    for loads in (
        [each.assigned for each in result.executors],
        [each.engine.busy_s for each in result.executors],
        list(tokens.values()),
    ):
        assert largest_share(loads) <= 1.5


@pytest.mark.parametrize("cache_events", [True, False])
def test_what_is_believed_is_what_engines_find(cache_events: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caches are small enough here for much to be evicted."""
    fleet = [InstanceModel(kv_capacity_tokens=60_000, cache_events=cache_events)] * 4
    simulation = Simulation(conversations(), fleet, SimulationSettings(scheduler=SchedulerSettings(policy="fifo")))
    decisions: list[Decision] = []
    schedule = simulation.scheduler.schedule
    monkeypatch.setattr(simulation.scheduler, "schedule", lambda now: noted(schedule(now), decisions))

    executors = simulation.run().executors

    believed = sum(each.cached_tokens for each in decisions)
    found = sum(each.engine.prefix_hits_tokens for each in executors)
    queried = sum(each.engine.prefix_queries_tokens for each in executors)
    assert 0.2 * queried < found < 0.9 * queried
    assert believed == pytest.approx(found, rel=0.1)


def noted(decisions: list[Decision], log: list[Decision]) -> list[Decision]:
    log += decisions
    return decisions


@pytest.mark.parametrize("policy", ["fifo", "slo_aware"])
def test_a_document_that_all_ask_about_stays_on_the_fast_ones_of_unequal_instances(policy: str) -> None:
    """They rightly have more to do than the mean: the bound sends nobody to a slow one."""
    rng = random.Random(1)
    arrivals = poisson_arrivals(rng, 10.0)
    document = tuple(range(1, 65))
    trace = [
        TracedRequest(
            arrival_s=next(arrivals), prompt_tokens=4_200, output_tokens=60, block_hashes=document, block_tokens=64
        )
        for _ in range(400)
    ]
    fleet = [InstanceModel(speed=speed) for speed in (2.0, 1.0, 0.5, 0.4)]

    def played(*, aware: bool) -> SimulationResult:
        settings = SchedulerSettings(policy=policy, prefix=PrefixSettings(aware=aware))
        return Simulation(trace, fleet, SimulationSettings(scheduler=settings)).run()

    def mean_whole(result: SimulationResult) -> float:
        return mean(each.ended_at - each.request.arrival_s for each in result.outcomes)

    assert mean_whole(played(aware=True)) <= 1.05 * mean_whole(played(aware=False))
