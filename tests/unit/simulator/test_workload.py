"""Loads that can be made at any rate."""

from __future__ import annotations

from typing import Any

import pytest

from sage_simulator.traced_request import TracedRequest
from sage_simulator.traces.synthetic.lengths import FixedLength
from sage_simulator.traces.synthetic.stretches import Stretch
from sage_simulator.traces.transformations import requests_per_s
from sage_simulator.workload import Workload

REPLAYED = tuple(TracedRequest(arrival_s=float(n), prompt_tokens=10, output_tokens=5) for n in range(20))


def test_a_synthetic_load_has_its_rate_and_another_seed_is_another_trace() -> None:
    load = Workload(requests=2_000)
    trace = load.trace(rate=5.0, seed=1)
    assert len(trace) == 2_000
    assert requests_per_s(trace) == pytest.approx(5.0, rel=0.1)
    assert load.trace(rate=5.0, seed=1) == trace
    assert load.trace(rate=5.0, seed=2) != trace
    assert load.seeded


def test_a_duration_holds_as_many_requests_as_arrive_in_it() -> None:
    assert len(Workload(duration_s=30.0).trace(rate=4.0, seed=1)) == 120
    assert len(Workload(replayed=REPLAYED, duration_s=50.0).trace(rate=None, seed=1)) == 50


def test_a_replayed_load_is_scaled_and_cut_and_has_the_same_requests_for_every_seed() -> None:
    load = Workload(replayed=REPLAYED, requests=10)
    trace = load.trace(rate=2.0, seed=1)
    assert len(trace) == 10
    assert requests_per_s(trace) == pytest.approx(2.0)
    assert load.trace(rate=2.0, seed=2) == trace
    assert not load.seeded
    assert Workload(replayed=REPLAYED).trace(rate=None, seed=1) == list(REPLAYED)


def test_requests_are_spread_over_models_and_some_are_cancelled_by_the_seed() -> None:
    load = Workload(replayed=REPLAYED, requests=2_000, models={"a": 3.0, "b": 1.0}, cancel_share=0.25)
    trace = load.trace(rate=None, seed=1)
    assert sum(each.model == "a" for each in trace) == pytest.approx(1_500, abs=80)
    cancelled = [each.cancel_after_s for each in trace if each.cancel_after_s is not None]
    assert len(cancelled) == pytest.approx(500, abs=80)
    assert sum(cancelled) / len(cancelled) == pytest.approx(5.0, rel=0.15)
    assert load.trace(rate=None, seed=2) != trace
    assert load.seeded


def test_turns_of_one_session_go_to_one_model() -> None:
    turns = tuple(
        TracedRequest(arrival_s=float(n), prompt_tokens=10, output_tokens=5, session=f"s{n % 5}") for n in range(100)
    )
    trace = Workload(replayed=turns, models={"a": 1.0, "b": 1.0}).trace(rate=None, seed=1)
    assert len({(each.session, each.model) for each in trace}) == 5
    assert {each.model for each in trace} == {"a", "b"}


def test_classes_and_targets_are_given() -> None:
    trace = Workload(replayed=REPLAYED, requests=200, classes="mixed").trace(rate=None, seed=1)
    assert len({each.priority for each in trace}) == 5
    [*found] = Workload(replayed=REPLAYED, ttft_target_s=1.0, tpot_target_s=0.1).trace(rate=None, seed=1)
    assert {(each.ttft_target_s, each.tpot_target_s) for each in found} == {(1.0, 0.1)}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "needs a number of requests or a duration"),
        ({"requests": 5, "duration_s": 5.0}, "exclude one another"),
        ({"requests": 5, "classes": "gold"}, "no classes 'gold'; there are: mixed, chat, untargeted"),
    ],
)
def test_what_is_wrong_is_said(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Workload(**values)


def test_a_synthetic_load_needs_a_rate() -> None:
    with pytest.raises(ValueError, match="needs a rate"):
        Workload(requests=5).trace(rate=None, seed=1)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"models": {"a": 0.0}}, "the weight of 'a'"),
        ({"cancel_share": 1.5}, "share must be from 0 to 1"),
        ({"cancel_share": 0.5, "cancel_mean_s": 0.0}, "mean_s"),
    ],
)
def test_what_is_wrong_with_models_and_cancellations_is_said(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Workload(replayed=REPLAYED, **values).trace(rate=None, seed=1)


def stretches() -> tuple[Stretch, ...]:
    prompts = Stretch(length_s=100.0, rate=5.0, prompts=FixedLength(3_000), outputs=FixedLength(10))
    return prompts, Stretch(length_s=50.0, rate=20.0, prompts=FixedLength(30), outputs=FixedLength(400))


def test_a_load_whose_shape_shifts_has_the_rates_and_lengths_of_its_stretches() -> None:
    load = Workload(stretches=stretches(), ttft_target_s=2.0)
    trace = load.trace(rate=None, seed=1)
    first = [each for each in trace if each.arrival_s < 100.0]
    rest = trace[len(first) :]
    assert len(first) == pytest.approx(500, rel=0.15)
    assert len(rest) == pytest.approx(1_000, rel=0.15)
    assert {(each.prompt_tokens, each.output_tokens) for each in first} == {(3_000, 10)}
    assert {(each.prompt_tokens, each.output_tokens) for each in rest} == {(30, 400)}
    assert all(100.0 <= each.arrival_s < 150.0 for each in rest)
    assert {each.ttft_target_s for each in trace} == {2.0}
    assert load.trace(rate=None, seed=1) == trace != load.trace(rate=None, seed=2)
    assert requests_per_s(load.trace(rate=2.0, seed=1)) == pytest.approx(2.0)
    assert load.seeded
    assert {each.prompt_tokens for each in load.sample()} == {3_000, 30}


def test_stretches_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="stretches say all of their trace"):
        Workload(stretches=stretches(), requests=10)
    with pytest.raises(ValueError, match="a stretch's rate must be a finite number above 0"):
        Stretch(length_s=1.0, rate=0.0, prompts=FixedLength(1), outputs=FixedLength(1))
