"""Prefill and decode on different modelled instances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from sage_simulator.fleet_capacity import RequestMix, fleet_capacity, instance_capacity, load_capacity
from sage_simulator.fleet_spec import InstanceModel, named_fleet
from sage_simulator.kv_transfer import KvTransfer
from sage_simulator.outcome import End
from sage_simulator.report import summarize
from sage_simulator.simulation import Simulation, SimulationResult
from sage_simulator.simulation_settings import SimulationSettings, splitting
from sage_simulator.traced_request import TracedRequest
from sage_simulator.traces.synthetic.poisson_trace import poisson_trace
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.policies.builtin import BUILTIN
from tests.unit.simulator.engines import Played, make_engine

PREFILL, DECODE = InstanceModel(role=InstanceRole.PREFILLING), InstanceModel(role=InstanceRole.DECODING)
SLOW = KvTransfer(latency_s=0.02, bytes_per_s=4e9)


def played(
    trace: Sequence[TracedRequest], fleet: Sequence[InstanceModel], pd: str = "always", **values: Any
) -> SimulationResult:
    return Simulation(trace, fleet, SimulationSettings(scheduler=splitting(pd), **values)).run()


def test_a_split_request_takes_its_prompt_its_transfer_and_its_tokens() -> None:
    trace = [TracedRequest(arrival_s=0.0, prompt_tokens=2_000, output_tokens=3)]
    result = played(trace, [PREFILL, DECODE], kv_transfer=SLOW, network_delay_s=0.001)
    [outcome] = result.outcomes
    pace = PREFILL.pace
    wire_s = 2_000 * PREFILL.kv_bytes_per_token / 4e9 + 0.02
    expected_s = pace.iteration_s(2_000, 1, 2_000) + wire_s + pace.iteration_s(1, 1, 2_000) + 4 * 0.001
    assert outcome.ttft_s == pytest.approx(expected_s)
    assert (outcome.split, outcome.instance_id, outcome.output_tokens) == (True, "i001", 3)
    prefill, decode = (each.engine for each in result.executors)
    assert (prefill.prompt_tokens, prefill.generated_tokens) == (2_000, 1)  # its one token is discarded
    assert (decode.prompt_tokens, decode.generated_tokens) == (1, 3)


def test_running_streams_are_not_delayed_by_prompts_that_are_computed_elsewhere() -> None:
    streams = [TracedRequest(arrival_s=0.0, prompt_tokens=100, output_tokens=400) for _ in range(8)]
    prompts = [TracedRequest(arrival_s=0.2 * n, prompt_tokens=8_000, output_tokens=2) for n in range(1, 12)]
    trace = [*streams, *prompts]
    split = played(trace, [PREFILL, DECODE])
    whole = played(trace, [InstanceModel(), InstanceModel()], "never")
    assert max(each.tpot_s or 0 for each in split.outcomes[:8]) < 0.7 * max(
        each.tpot_s or 0 for each in whole.outcomes[:8]
    )


@pytest.mark.parametrize("mode", ["always", "threshold", "adaptive"])
@pytest.mark.parametrize("policy", sorted(BUILTIN))
def test_every_request_ends_once_and_frees_everything(policy: str, mode: str) -> None:
    fleet = [
        *(replace(PREFILL, kv_capacity_tokens=20_000, max_running=8),) * 2,
        *(replace(DECODE, kv_capacity_tokens=20_000, max_running=8),) * 2,
        InstanceModel(kv_capacity_tokens=20_000, max_running=8),
    ]
    trace = [
        replace(each, block_hashes=tuple(range(each.prompt_tokens // 512)), cancel_after_s=0.4 if n % 7 == 0 else None)
        for n, each in enumerate(poisson_trace(requests=250, rate=25.0, seed=4))
    ]
    settings = SimulationSettings(scheduler=replace(splitting(mode), policy=policy))
    result = Simulation(trace, fleet, settings).run()
    assert {each.end for each in result.outcomes} <= {End.FINISHED, End.CANCELLED}
    for executor in result.executors:
        engine = executor.engine
        assert (engine.running, engine.waiting, engine.kv_used_tokens) == (0, 0, 0)
    if mode != "adaptive":
        assert any(each.split for each in result.outcomes)
    summary = summarize(result)
    assert summary.splits == result.split_counts.splits
    assert sum(summary.split_fallbacks.values()) == result.split_counts.fallbacks


def test_the_same_trace_gives_the_same_result() -> None:
    trace = poisson_trace(requests=200, rate=20.0, seed=4)
    assert played(trace, named_fleet("PD")).outcomes == played(trace, named_fleet("PD")).outcomes


def test_transfers_to_one_engine_share_its_bandwidth() -> None:
    trace = [TracedRequest(arrival_s=0.0, prompt_tokens=2_000, output_tokens=2) for _ in range(4)]
    result = played(trace, [*(PREFILL,) * 4, DECODE], kv_transfer=KvTransfer(latency_s=0.0, bytes_per_s=1e9))
    firsts = sorted(each.first_token_at or 0 for each in result.outcomes)
    wire_s = 2_000 * PREFILL.kv_bytes_per_token / 1e9
    assert firsts[3] - firsts[0] == pytest.approx(3 * wire_s, rel=0.1)


def test_a_cancelled_request_leaves_no_kv_behind_wherever_it_is() -> None:
    for cancel_after_s in (0.01, 0.05, 0.09, 0.1, 0.11, 0.15, 0.3):
        trace = [
            TracedRequest(arrival_s=0.0, prompt_tokens=2_000, output_tokens=2_000, cancel_after_s=cancel_after_s),
            TracedRequest(arrival_s=5.0, prompt_tokens=100, output_tokens=2),
        ]
        result = played(trace, [PREFILL, DECODE], kv_transfer=SLOW)
        assert [each.end for each in result.outcomes] == [End.CANCELLED, End.FINISHED]
        assert [each.engine.kv_used_tokens for each in result.executors] == [0, 0]


def test_the_splitting_fleet_serves_what_its_weaker_side_serves() -> None:
    mix = RequestMix.of([TracedRequest(arrival_s=0.0, prompt_tokens=2_000, output_tokens=200)])
    one, two = (fleet_capacity([PREFILL] * n + [DECODE] * 4, mix, split=True) for n in (1, 2))
    assert two == pytest.approx(2 * one)
    beside = fleet_capacity([PREFILL, *[DECODE] * 4, InstanceModel()], mix, split=True)
    assert beside == pytest.approx(one + instance_capacity(InstanceModel(), mix))
    assert fleet_capacity([PREFILL] * 2 + [DECODE], mix) == pytest.approx(instance_capacity(DECODE, mix))
    assert fleet_capacity([PREFILL, DECODE, InstanceModel()], mix) == pytest.approx(instance_capacity(DECODE, mix))


def test_a_splitting_fleet_keeps_up_at_80_percent_of_its_computed_capacity_and_not_at_130() -> None:
    sample = poisson_trace(requests=2_000, rate=1.0, seed=3)
    capacity = load_capacity(named_fleet("PD"), sample, split=True)
    kept, not_kept = (
        summarize(played(poisson_trace(requests=3_000, rate=load * capacity, seed=3), named_fleet("PD")))
        for load in (0.8, 1.3)
    )
    assert kept.ttft.p90_s is not None
    assert not_kept.ttft.p90_s is not None
    assert kept.ttft.p90_s < 0.6
    assert not_kept.ttft.p90_s > 3 * kept.ttft.p90_s


def test_kv_that_is_kept_takes_room_until_it_is_released() -> None:
    engine = make_engine()
    engine.add(1, prompt_tokens=50, output_tokens=1, keeps_kv=True)
    Played(engine).to_the_end()
    assert engine.kv_used_tokens == 50
    engine.release_kv(1)
    engine.release_kv(1)
    assert engine.kv_used_tokens == 0


def test_a_fetched_prompt_takes_its_room_at_once_and_only_its_last_token_is_computed() -> None:
    engine = make_engine()
    engine.add(1, prompt_tokens=50, output_tokens=2, fetches_kv=True)
    assert engine.start_step() is None
    assert engine.take_fetches() == [(1, 50)]
    assert (engine.kv_used_tokens, engine.running, engine.waiting) == (50, 0, 1)
    engine.fetched(1)
    played = Played(engine).to_the_end()
    assert set(played.ended) == {1}
    assert (engine.prompt_tokens, engine.generated_tokens, engine.kv_used_tokens) == (1, 2, 0)


def test_what_the_prefix_cache_has_is_not_fetched() -> None:
    engine = make_engine()
    engine.add(1, prompt_tokens=50, output_tokens=1, prefixes=(7, 8), prefix_tokens=20)
    Played(engine).to_the_end()
    engine.add(2, prompt_tokens=50, output_tokens=1, prefixes=(7, 8), prefix_tokens=20, fetches_kv=True)
    assert engine.start_step() is None
    assert engine.take_fetches() == [(2, 10)]


def test_a_prompt_whose_kv_does_not_come_is_computed() -> None:
    engine = make_engine()
    engine.add(1, prompt_tokens=50, output_tokens=2, fetches_kv=True)
    engine.start_step()
    engine.fetch_failed(1)
    Played(engine).to_the_end()
    assert (engine.prompt_tokens, engine.generated_tokens, engine.kv_used_tokens) == (50, 2, 0)


def test_fetches_wait_for_room_and_an_abort_gives_it_back() -> None:
    engine = make_engine(kv_capacity_tokens=100)
    engine.add(1, prompt_tokens=60, output_tokens=2, fetches_kv=True)
    engine.add(2, prompt_tokens=60, output_tokens=2, fetches_kv=True)
    engine.start_step()
    assert [number for number, _ in engine.take_fetches()] == [1]
    assert engine.abort(1) == 0
    engine.start_step()
    assert [number for number, _ in engine.take_fetches()] == [2]
    engine.fetched(2)
    assert engine.abort(2) == 0
    assert (engine.kv_used_tokens, engine.waiting) == (0, 0)


@pytest.mark.parametrize("values", [{"latency_s": -1.0}, {"bytes_per_s": 0.0}])
def test_a_transfer_is_checked(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        KvTransfer(**values)
