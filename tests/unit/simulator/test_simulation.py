"""Whole simulations: the scheduler's domain over modelled executors in virtual time."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from sage_simulator.fleet_capacity import RequestMix, fleet_capacity
from sage_simulator.fleet_spec import InstanceModel, named_fleet
from sage_simulator.heartbeats import HeartbeatTimes
from sage_simulator.outcome import End
from sage_simulator.simulation import Simulation, SimulationResult
from sage_simulator.simulation_settings import SimulationError, SimulationSettings
from sage_simulator.traced_request import TracedRequest
from sage_simulator.traces.synthetic.poisson_trace import poisson_trace
from sage_simulator.traces.transformations import scale_to_rate
from scheduler_svc.domain.policies.builtin import BUILTIN
from scheduler_svc.domain.request import Priority
from scheduler_svc.domain.settings import SchedulerSettings


def simulate(
    trace: Sequence[TracedRequest],
    fleet: Sequence[InstanceModel],
    policy: str = "fifo",
    *,
    scheduler: dict[str, Any] | None = None,
    **settings: Any,
) -> SimulationResult:
    world = SimulationSettings(scheduler=SchedulerSettings(policy=policy, **scheduler or {}), **settings)
    return Simulation(trace, fleet, world).run()


def loaded(fleet: Sequence[InstanceModel], load: float, requests: int = 300) -> list[TracedRequest]:
    """A trace that loads a fleet to a share of its capacity, with classes, targets, deadlines and shared prefixes."""
    source = random.Random(5)
    trace = poisson_trace(requests=requests, rate=1, seed=7)
    trace = scale_to_rate(trace, load * fleet_capacity(fleet, RequestMix.of(trace)))
    return [
        replace(
            each,
            priority=source.choice(list(Priority)),
            ttft_target_s=source.choice((None, 1.0)),
            deadline_s=source.choice((None, 0.3, 30.0)),
            block_hashes=tuple(1_000 * i + source.randrange(2) for i in range(each.prompt_tokens // 512)),
        )
        for each in trace
    ]


def test_an_idle_instance_answers_as_fast_as_its_engine_and_the_network() -> None:
    instance = InstanceModel()
    trace = [TracedRequest(arrival_s=1.0, prompt_tokens=1_000, output_tokens=3)]
    [outcome] = simulate(trace, [instance], network_delay_s=0.01).outcomes
    prefill_s = instance.pace.iteration_s(1_000, 1, 1_000)
    assert outcome.ttft_s == pytest.approx(0.01 + prefill_s + 0.01)
    assert outcome.queue_wait_s == 0
    assert outcome.tpot_s == pytest.approx(
        (instance.pace.iteration_s(0, 1, 1_001) + instance.pace.iteration_s(0, 1, 1_002)) / 2
    )
    assert outcome.in_target


def test_twice_the_speed_is_half_the_time() -> None:
    trace = [TracedRequest(arrival_s=0.0, prompt_tokens=1_000, output_tokens=100)]
    [slow] = simulate(trace, [InstanceModel()], network_delay_s=0).outcomes
    [fast] = simulate(trace, [InstanceModel(speed=2.0)], network_delay_s=0).outcomes
    assert fast.ended_at == pytest.approx(slow.ended_at / 2)


@pytest.mark.parametrize("load", [0.5, 1.5])
@pytest.mark.parametrize("policy", sorted(BUILTIN))
def test_every_request_ends_exactly_once_under_every_policy(policy: str, load: float) -> None:
    fleet = [
        InstanceModel(speed=1.0, price_per_hour=2.0, kv_capacity_tokens=20_000, max_running=16),
        InstanceModel(speed=0.5, price_per_hour=0.5, kv_capacity_tokens=20_000, max_running=16),
    ]
    trace = loaded(fleet, load)
    result = simulate(trace, fleet, policy)  # raises where one ends twice or never
    assert [each.request for each in result.outcomes] == trace
    assert result.policy == policy
    assert result.decisions == sum(each.assigned for each in result.executors)
    for each in result.outcomes:
        assert each.end is End.FINISHED or (each.end is End.EXPIRED and each.request.deadline_s is not None) or each.why
        if each.end is End.FINISHED:
            assert each.output_tokens == each.request.output_tokens
            assert each.request.arrival_s < (each.first_token_at or 0) <= each.ended_at
    for executor in result.executors:
        engine = executor.engine
        assert (engine.running, engine.waiting, engine.kv_used_tokens) == (0, 0, 0)
    assert result.stalls == 0


@pytest.mark.parametrize("policy", sorted(BUILTIN))
def test_the_same_trace_gives_the_same_result(policy: str) -> None:
    fleet = named_fleet("U8")
    trace = loaded(fleet, 0.9)
    assert simulate(trace, fleet, policy).outcomes == simulate(trace, fleet, policy).outcomes


def test_another_seed_gives_another_trace_and_the_same_seed_the_same() -> None:
    assert poisson_trace(requests=50, rate=2, seed=1) == poisson_trace(requests=50, rate=2, seed=1)
    assert poisson_trace(requests=50, rate=2, seed=1) != poisson_trace(requests=50, rate=2, seed=2)


def test_equal_instances_share_a_steady_load_evenly() -> None:
    fleet = named_fleet("E8")
    result = simulate(loaded(fleet, 0.5, requests=800), fleet)
    placed = [each.assigned for each in result.executors]
    assert sum(placed) == 800
    assert min(placed) > 70
    assert max(placed) < 130


def test_a_request_that_waits_beyond_its_deadline_expires() -> None:
    one_slot = [InstanceModel(max_running=1)]
    trace = [
        TracedRequest(arrival_s=0.0, prompt_tokens=10, output_tokens=2_000),
        TracedRequest(arrival_s=0.1, prompt_tokens=10, output_tokens=10, deadline_s=1.0),
        TracedRequest(arrival_s=0.2, prompt_tokens=10, output_tokens=10),
    ]
    long, expired, last = simulate(trace, one_slot).outcomes
    assert (long.end, expired.end, last.end) == (End.FINISHED, End.EXPIRED, End.FINISHED)
    assert expired.ended_at == pytest.approx(1.1)
    assert not expired.in_target


def test_a_running_request_that_reaches_its_deadline_is_aborted_and_its_slot_goes_to_the_next() -> None:
    one_slot = [InstanceModel(max_running=1)]
    trace = [
        TracedRequest(arrival_s=0.0, prompt_tokens=10, output_tokens=2_000, deadline_s=1.0),
        TracedRequest(arrival_s=0.1, prompt_tokens=10, output_tokens=10),
    ]
    expired, after = simulate(trace, one_slot).outcomes
    assert (expired.end, after.end) == (End.EXPIRED, End.FINISHED)
    assert expired.first_token_at is not None
    assert 1.0 < (after.first_token_at or 0) < 1.1


def test_a_full_queue_refuses() -> None:
    trace = [TracedRequest(arrival_s=0.0, prompt_tokens=10, output_tokens=100) for _ in range(10)]
    result = simulate(trace, [InstanceModel(max_running=1)], scheduler={"queue_limit_per_model": 3})
    assert sum(each.end is End.REFUSED for each in result.outcomes) == 7
    assert all("queue" in each.why for each in result.outcomes if each.end is End.REFUSED)


def test_a_request_that_no_instance_can_hold_is_refused() -> None:
    trace = [TracedRequest(arrival_s=0.0, prompt_tokens=5_000, output_tokens=100)]
    [outcome] = simulate(trace, [InstanceModel(kv_capacity_tokens=1_600)]).outcomes
    assert outcome.end is End.REFUSED


def test_output_is_cut_at_what_the_caller_asked_for() -> None:
    trace = [TracedRequest(arrival_s=0.0, prompt_tokens=10, output_tokens=100, max_tokens=20)]
    [outcome] = simulate(trace, [InstanceModel()]).outcomes
    assert outcome.output_tokens == 20


def test_an_idle_executor_reports_every_interval() -> None:
    trace = [TracedRequest(arrival_s=100.0, prompt_tokens=10, output_tokens=1)]
    [executor] = simulate(trace, [InstanceModel()]).executors
    assert executor.heartbeats == pytest.approx(200, abs=2)


def test_a_busy_executor_reports_as_often_as_attempts_come_and_go_but_not_within_the_gap() -> None:
    trace = [TracedRequest(arrival_s=0.02 * n, prompt_tokens=10, output_tokens=2) for n in range(500)]
    result = simulate(trace, [InstanceModel()], heartbeats=HeartbeatTimes(interval_s=0.5, gap_s=0.05))
    assert result.executors[0].heartbeats == pytest.approx(result.ended_at / 0.05, rel=0.1)


def test_the_scheduler_learns_the_engines_pace_from_heartbeats() -> None:
    fleet = [InstanceModel(speed=0.25)]
    trace = scale_to_rate(poisson_trace(requests=200, rate=1, seed=3), 2.0)
    simulation = Simulation(trace, fleet, SimulationSettings())
    simulation.run()
    assert simulation.scheduler.accuracy("i000")["iteration"].relative_error < 0.1


def test_a_trace_of_two_models_is_refused() -> None:
    trace = [
        TracedRequest(arrival_s=0.0, prompt_tokens=1, output_tokens=1, model=model) for model in ("small", "large")
    ]
    with pytest.raises(SimulationError, match="large, small"):
        simulate(trace, [InstanceModel()])


@pytest.mark.parametrize("changes", [{"gap_s": 0.0}, {"gap_s": 1.0}])
def test_heartbeat_times_are_checked(changes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="heartbeats"):
        HeartbeatTimes(**changes)
