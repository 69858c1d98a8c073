"""The oracle places by true lengths and true speeds, and gives up what cannot meet its targets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from sage_simulator.fleet_spec import InstanceModel
from sage_simulator.oracle import OracleOrder, OracleSimulation
from sage_simulator.oracle_run import run_oracle
from sage_simulator.outcome import End, Outcome
from sage_simulator.policy_run import run_policy
from sage_simulator.report import summarize
from sage_simulator.simulation_settings import SimulationSettings
from sage_simulator.traced_request import TracedRequest
from sage_simulator.traces import with_default_targets
from sage_simulator.traces.synthetic.poisson_trace import poisson_trace

SETTINGS = SimulationSettings()
ONE = (InstanceModel(),)
# A prompt of 2,000 tokens takes 87 ms, a step of one sequence 7 ms.
REQUEST = TracedRequest(arrival_s=0.0, prompt_tokens=2_000, output_tokens=50)


def play(
    *trace: TracedRequest, fleet: Sequence[InstanceModel] = ONE, order: OracleOrder = OracleOrder.DEADLINE
) -> tuple[Outcome, ...]:
    return OracleSimulation(trace, fleet, SETTINGS, order).run().outcomes


@pytest.mark.parametrize("order", OracleOrder)
def test_every_request_ends_once_in_the_order_of_the_trace(order: OracleOrder) -> None:
    trace = with_default_targets(poisson_trace(requests=400, rate=40.0, seed=1), ttft_s=1.0, tpot_s=0.05)

    outcomes = play(*trace, order=order)

    assert [each.request for each in outcomes] == trace
    assert {each.end for each in outcomes} == {End.FINISHED, End.REFUSED}


def test_the_same_trace_gives_the_same_result() -> None:
    trace = with_default_targets(poisson_trace(requests=200, rate=30.0, seed=2), ttft_s=1.0, tpot_s=0.05)

    assert play(*trace) == play(*trace)


def test_it_gives_up_at_once_what_no_instance_can_do_in_time() -> None:
    [lost, kept] = play(replace(REQUEST, ttft_target_s=0.05), replace(REQUEST, ttft_target_s=0.2))

    assert (lost.end, lost.ended_at, lost.output_tokens) == (End.REFUSED, 0.0, 0)
    assert lost.why.startswith("given up: ")
    assert kept.end is End.FINISHED
    assert kept.in_target


def test_it_gives_up_what_waited_too_long() -> None:
    outcomes = play(*[replace(REQUEST, ttft_target_s=0.5)] * 20)

    ends = Counter(each.end for each in outcomes)
    assert 4 <= ends[End.FINISHED] <= 6  # half a second of prefill
    assert ends[End.REFUSED] == 20 - ends[End.FINISHED]
    assert all(each.in_target for each in outcomes if each.end is End.FINISHED)


def test_what_has_the_earliest_deadline_goes_first() -> None:
    patient = [replace(REQUEST, ttft_target_s=9.0)] * 30
    urgent = replace(REQUEST, arrival_s=0.1, ttft_target_s=0.5)

    *_, last = play(*patient, urgent)

    assert last.in_target


def test_shortest_first_serves_more_of_a_burst() -> None:
    long = [replace(REQUEST, prompt_tokens=8_000, ttft_target_s=0.6)] * 5
    short = [replace(REQUEST, prompt_tokens=1_000, ttft_target_s=0.6)] * 10

    by_deadline = sum(each.in_target for each in play(*long, *short))
    by_size = sum(each.in_target for each in play(*long, *short, order=OracleOrder.SHORTEST))

    assert by_size > by_deadline
    best = run_oracle([*long, *short], ONE, SETTINGS)
    assert sum(each.in_target for each in best.outcomes) >= by_size


def test_a_margin_leaves_room_for_what_comes_later() -> None:
    trace = with_default_targets(poisson_trace(requests=600, rate=11.0, seed=4), ttft_s=2.0, tpot_s=0.025)

    without, with_margin = (
        sum(each.in_target for each in OracleSimulation(trace, ONE, SETTINGS, most_share=share).run().outcomes)
        for share in (1.0, 0.7)
    )

    assert with_margin > without


def test_a_request_goes_where_it_uses_the_least_of_its_targets() -> None:
    fleet = (InstanceModel(speed=0.5), InstanceModel(speed=2.0))

    [outcome] = play(replace(REQUEST, ttft_target_s=0.5), fleet=fleet)

    assert outcome.instance_id == "i001"


def test_a_request_waits_rather_than_ruin_those_that_run() -> None:
    # One sequence takes 7.06 ms a step, two take 7.1: the second would break the first one's target.
    first = replace(REQUEST, prompt_tokens=10, output_tokens=100, tpot_target_s=0.00707)
    second = replace(REQUEST, prompt_tokens=10, arrival_s=0.1, ttft_target_s=5.0)

    outcomes = play(first, second)

    assert outcomes[1].placed_at is not None
    assert outcomes[1].placed_at >= outcomes[0].ended_at
    assert all(each.in_target for each in outcomes)


def test_a_prompt_goes_where_its_prefix_is_cached() -> None:
    hashes = tuple(range(3))
    request = replace(REQUEST, block_hashes=hashes, output_tokens=2, ttft_target_s=1.0)
    other = replace(REQUEST, arrival_s=1.0, output_tokens=400, ttft_target_s=1.0)
    again = replace(request, arrival_s=1.2)

    first, _, last = play(request, other, again, fleet=ONE * 2)

    assert last.instance_id == first.instance_id
    assert last.ttft_s is not None
    assert first.ttft_s is not None
    assert last.ttft_s < first.ttft_s / 2


@pytest.mark.parametrize("policy", ["fifo", "slo_aware"])
def test_under_overload_it_keeps_more_in_target_than_a_policy(policy: str) -> None:
    trace = with_default_targets(poisson_trace(requests=500, rate=25.0, seed=3), ttft_s=1.0, tpot_s=0.05)

    oracle = summarize(run_oracle(trace, ONE, SETTINGS))

    assert oracle.policy == "oracle"
    assert oracle.in_target_share > run_policy(trace, ONE, policy).in_target_share
