"""Fleets by name and by notation, and the capacity that is computed for them."""

from __future__ import annotations

import pytest

from sage_simulator.fleet_capacity import RequestMix, fleet_capacity, instance_capacity
from sage_simulator.fleet_spec import FleetSpecError, InstanceModel, named_fleet, parse_instances
from sage_simulator.simulation import Simulation
from sage_simulator.simulation_settings import SimulationSettings
from sage_simulator.traced_request import TracedRequest
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.prediction.pace import Pace

PACE = Pace(base_s=1.0, prefill_token_s=0.01, running_s=0.1, kv_token_s=0.001)


def test_the_named_fleets_are_equal_and_unequal() -> None:
    assert len(set(named_fleet("E8"))) == 1
    assert len(set(named_fleet("U8"))) == 8
    assert [len(named_fleet(name)) for name in ("E8", "U8")] == [8, 8]
    with pytest.raises(FleetSpecError, match="E8, U8"):
        named_fleet("E9")


def test_groups_of_instances_are_read() -> None:
    fleet = parse_instances("2xspeed=0.5,price=3,slots=64,chunk=4096,kv=100000,length=8192,role=hybrid; 1x")
    described = InstanceModel(
        speed=0.5,
        price_per_hour=3.0,
        max_running=64,
        max_batched_tokens=4_096,
        kv_capacity_tokens=100_000,
        max_model_len=8_192,
        role=InstanceRole.HYBRID,
    )
    assert fleet == (described, described, InstanceModel())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "number of instances"),
        ("speed=1", "number of instances"),
        ("0xspeed=1", "number of instances"),
        ("1xcolour=red", "the keys are: speed"),
        ("1xspeed=fast", "'fast' is no speed"),
        ("1xspeed=-1", "not a positive number"),
        ("1xspeed=nan", "not a positive number"),
        ("1xprice=-1", "price_per_hour"),
        ("1xslots=64,chunk=32", "a chunk of 32"),
        ("1xkv=8", "less than one block"),
        ("1xrole=embedding", "the simulator's instances generate"),
    ],
)
def test_what_is_wrong_with_a_fleet_is_said(text: str, said: str) -> None:
    with pytest.raises(FleetSpecError, match=said):
        parse_instances(text)


def mix(prompt: int, output: int) -> RequestMix:
    return RequestMix.of([TracedRequest(arrival_s=0.0, prompt_tokens=prompt, output_tokens=output)])


def test_longer_outputs_weigh_more_in_the_mean_context() -> None:
    trace = [
        TracedRequest(arrival_s=0.0, prompt_tokens=100, output_tokens=10),
        TracedRequest(arrival_s=0.0, prompt_tokens=300, output_tokens=30),
    ]
    found = RequestMix.of(trace)
    assert (found.prompt_tokens, found.output_tokens) == (200, 20)
    assert found.context_tokens == (10 * 105 + 30 * 315) / 40


def test_capacity_is_bound_by_slots() -> None:
    instance = InstanceModel(pace=PACE, max_running=10, max_batched_tokens=100, kv_capacity_tokens=100_000)
    # ten sequences of 20 tokens of context; 10 x 10 / 20 = 5 prefill tokens in each step
    step_s = 1 + 0.01 * 5 + 0.1 * 10 + 0.001 * 10 * 20
    assert instance_capacity(instance, mix(10, 20)) == pytest.approx(10 / 20 / step_s)


def test_capacity_is_bound_by_the_kv_cache() -> None:
    instance = InstanceModel(pace=PACE, max_running=10, max_batched_tokens=100, kv_capacity_tokens=80)
    step_s = 1 + 0.01 * 2 + 0.1 * 4 + 0.001 * 4 * 20
    assert instance_capacity(instance, mix(10, 20)) == pytest.approx(4 / 20 / step_s)


def test_capacity_is_bound_by_the_chunk() -> None:
    instance = InstanceModel(pace=PACE, max_running=10, max_batched_tokens=11, kv_capacity_tokens=100_000)
    # ten prefill tokens for each decoded one: a step holds one of these and ten of those
    step_s = 1 + 0.01 * 10 + 0.1 * 1 + 0.001 * 105
    assert instance_capacity(instance, mix(100, 10)) == pytest.approx(1 / 10 / step_s)


def test_a_fleet_serves_what_its_instances_serve_and_speed_counts() -> None:
    one, two = InstanceModel(), InstanceModel(speed=2.0)
    assert fleet_capacity([one, two], mix(800, 150)) == pytest.approx(3 * instance_capacity(one, mix(800, 150)))


def test_a_fleet_that_is_always_full_serves_about_its_computed_capacity() -> None:
    fleet = [InstanceModel(max_running=64)]
    trace = [TracedRequest(arrival_s=0.0, prompt_tokens=600, output_tokens=150) for _ in range(2_000)]
    result = Simulation(trace, fleet, SimulationSettings()).run()
    assert 2_000 / result.ended_at == pytest.approx(fleet_capacity(fleet, RequestMix.of(trace)), rel=0.1)


def test_an_empty_trace_has_no_mix() -> None:
    with pytest.raises(ValueError, match="empty"):
        RequestMix.of([])
