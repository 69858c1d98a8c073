"""Changes of a whole trace, and classes given out to it."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_simulator.traced_request import TracedRequest
from sage_simulator.traces import (
    MIXES,
    RequestClass,
    repeat_to,
    requests_per_s,
    scale_time,
    scale_to_rate,
    truncate_prompts,
    window,
    with_classes,
    with_default_targets,
)
from sage_simulator.traces.synthetic import FixedLength, independent_requests, poisson_arrivals
from scheduler_svc.domain.request import Priority


def arriving(*arrivals: float) -> list[TracedRequest]:
    return [TracedRequest(arrival_s=arrival, prompt_tokens=10, output_tokens=1) for arrival in arrivals]


def times(trace: list[TracedRequest]) -> list[float]:
    return [request.arrival_s for request in trace]


def test_the_rate_is_the_gaps_by_the_time_between_first_and_last() -> None:
    assert requests_per_s(arriving(10, 11, 15)) == pytest.approx(2 / 5)


@pytest.mark.parametrize("trace", [[], arriving(3), arriving(3, 3)])
def test_a_trace_of_one_moment_has_no_rate(trace: list[TracedRequest]) -> None:
    with pytest.raises(ValueError):
        requests_per_s(trace)
    with pytest.raises(ValueError):
        scale_to_rate(trace, 2)


def test_time_is_stretched() -> None:
    trace = arriving(0, 1, 4)
    assert times(scale_time(trace, 2)) == [0, 2, 8]
    assert times(trace) == [0, 1, 4]


@pytest.mark.parametrize("factor", [0, -1, float("inf"), float("nan")])
def test_time_is_stretched_by_a_finite_number_above_zero(factor: float) -> None:
    with pytest.raises(ValueError, match="factor"):
        scale_time(arriving(0, 1), factor)


@given(st.lists(st.floats(0, 1e6), min_size=2), st.floats(0.01, 1e4))
def test_a_scaled_trace_has_the_rate_and_the_order(arrivals: list[float], rate: float) -> None:
    trace = arriving(*sorted(arrivals))
    if trace[-1].arrival_s - trace[0].arrival_s < 1e-3:
        return
    scaled = scale_to_rate(trace, rate)
    assert requests_per_s(scaled) == pytest.approx(rate, rel=1e-6)
    assert times(scaled) == sorted(times(scaled))


def test_a_window_begins_at_its_start_and_leaves_its_end_out() -> None:
    assert times(window(arriving(0, 5, 7, 10), 5, 10)) == [0, 2]
    with pytest.raises(ValueError, match="no request"):
        window(arriving(0, 5), 1, 5)


def test_a_truncated_prompt_keeps_the_hashes_of_its_full_blocks() -> None:
    [long, short] = [
        TracedRequest(arrival_s=0, prompt_tokens=p, output_tokens=1, block_hashes=h, block_tokens=10)
        for p, h in ((35, (1, 2, 3)), (15, (1,)))
    ]
    cut, kept = truncate_prompts([long, short], 29)
    assert (cut.prompt_tokens, cut.block_hashes) == (29, (1, 2))
    assert kept == short
    with pytest.raises(ValueError):
        truncate_prompts([long], 0)


def test_a_repeated_trace_goes_on_at_its_own_rate() -> None:
    assert times(repeat_to(arriving(0, 1, 4), 7)) == pytest.approx([0, 1, 4, 6, 7, 10, 12])
    assert times(repeat_to(arriving(0, 1, 4), 2)) == [0, 1]
    assert times(repeat_to(arriving(3), 1)) == [3]
    for trace, count in ((arriving(3), 2), (arriving(0, 1), 0)):
        with pytest.raises(ValueError):
            repeat_to(trace, count)


def test_a_repetition_shares_prefixes_with_itself_alone() -> None:
    trace = [
        TracedRequest(arrival_s=a, prompt_tokens=20, output_tokens=1, block_hashes=h, block_tokens=10, session="s")
        for a, h in ((0, (1,)), (1, (1, 2)))
    ]
    first, second, third, fourth = repeat_to(trace, 4)
    assert (first, second) == tuple(trace)
    assert fourth.block_hashes[:1] == third.block_hashes
    assert not {*first.block_hashes, *second.block_hashes} & {*third.block_hashes, *fourth.block_hashes}
    assert third.session == fourth.session != first.session


def test_classes_are_given_out_by_weight_and_by_the_seed() -> None:
    rng = random.Random(1)
    trace = independent_requests(rng, poisson_arrivals(rng, 1), 10_000, prompts=FixedLength(1), outputs=FixedLength(1))
    classified = with_classes(trace, random.Random(2))
    share = {priority: n / len(trace) for priority, n in Counter(each.priority for each in classified).items()}
    expected = {each.priority: each.weight / 100 for each in MIXES["mixed"]}
    assert share == pytest.approx(expected, abs=0.02)
    assert classified == with_classes(trace, random.Random(2))
    assert times(classified) == times(trace)
    assert {each.ttft_target_s for each in classified if each.priority is Priority.HIGH} == {1.0}


def test_the_turns_of_a_session_have_one_class() -> None:
    trace = [
        TracedRequest(arrival_s=n, prompt_tokens=1, output_tokens=1, session=str(n % 7), tenant=str(n % 2))
        for n in range(200)
    ]
    classified = with_classes(trace, random.Random(3))
    assert len({(each.tenant, each.session, each.priority) for each in classified}) == 14
    assert len({each.priority for each in classified}) > 1


@pytest.mark.parametrize("classes", [(), (RequestClass(weight=0),), (RequestClass(weight=float("nan")),)])
def test_classes_need_weights(classes: tuple[RequestClass, ...]) -> None:
    with pytest.raises(ValueError):
        with_classes(arriving(0), random.Random(0), classes)


@pytest.mark.parametrize("mix", MIXES)
def test_every_named_mix_can_be_given_out(mix: str) -> None:
    assert len(with_classes(arriving(0, 1), random.Random(0), MIXES[mix])) == 2


def test_default_targets_leave_stated_ones_alone() -> None:
    plain = TracedRequest(arrival_s=0.0, prompt_tokens=1, output_tokens=1)
    stating = TracedRequest(arrival_s=0.0, prompt_tokens=1, output_tokens=1, deadline_s=3.0)
    [given, kept] = with_default_targets([plain, stating], ttft_s=2.0, tpot_s=None)
    assert (given.ttft_target_s, given.tpot_target_s) == (2.0, None)
    assert kept is stating
