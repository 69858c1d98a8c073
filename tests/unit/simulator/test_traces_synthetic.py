"""Generators: what they make has the stated shape, and the same seed makes the same."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from statistics import fmean, median, pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_simulator.traced_request import TracedRequest
from sage_simulator.traces.prefix_blocks import PrefixBlocks
from sage_simulator.traces.synthetic import (
    FixedLength,
    LognormalLengths,
    SessionShape,
    Tenant,
    gamma_arrivals,
    independent_requests,
    multi_turn_sessions,
    on_off_arrivals,
    poisson_arrivals,
)

COUNT = 50_000
TEXTS = LognormalLengths(median=200, sigma=1.0, least=10, most=2000)
OUTPUTS = LognormalLengths(median=100, sigma=0.8, most=1000)


def on_off(rng: random.Random) -> Iterator[float]:
    return on_off_arrivals(rng, on_requests_per_s=18, off_requests_per_s=2, mean_on_s=1, mean_off_s=1)


PROCESSES: dict[str, tuple[Callable[[random.Random], Iterator[float]], float]] = {
    "poisson": (lambda rng: poisson_arrivals(rng, 10), 1.0),
    "bursty gamma": (lambda rng: gamma_arrivals(rng, 10, 3), 3.0),
    "even gamma": (lambda rng: gamma_arrivals(rng, 10, 0.3), 0.3),
}


def gaps(arrivals: Iterator[float]) -> list[float]:
    return [after - before for before, after in pairwise(islice(arrivals, COUNT))]


@pytest.mark.parametrize("name", PROCESSES)
def test_gaps_have_the_stated_mean_and_variation(name: str) -> None:
    process, variation = PROCESSES[name]
    found = gaps(process(random.Random(1)))
    assert 1 / fmean(found) == pytest.approx(10, rel=0.05)
    assert pstdev(found) / fmean(found) == pytest.approx(variation, rel=0.05)


def test_an_on_off_process_has_the_mean_of_both_rates_and_is_bursty() -> None:
    found = gaps(on_off(random.Random(1)))
    assert 1 / fmean(found) == pytest.approx(10, rel=0.05)
    assert pstdev(found) / fmean(found) > 1.2


def test_nothing_arrives_while_a_process_is_off() -> None:
    silent = on_off_arrivals(random.Random(1), on_requests_per_s=100, off_requests_per_s=0, mean_on_s=1, mean_off_s=9)
    assert 1 / fmean(gaps(silent)) == pytest.approx(10, rel=0.15)


@pytest.mark.parametrize("process", [*(process for process, _ in PROCESSES.values()), on_off])
def test_arrivals_ascend_and_follow_from_the_seed(process: Callable[[random.Random], Iterator[float]]) -> None:
    once, again, other = (list(islice(process(random.Random(seed)), 500)) for seed in (7, 7, 8))
    assert once == again != other
    assert once == sorted(once)
    assert once[0] > 0


@pytest.mark.parametrize(
    "process",
    [
        lambda rng: poisson_arrivals(rng, 0),
        lambda rng: gamma_arrivals(rng, 1, 0),
        lambda rng: gamma_arrivals(rng, float("nan"), 1),
        lambda rng: on_off_arrivals(rng, on_requests_per_s=1, off_requests_per_s=-1, mean_on_s=1, mean_off_s=1),
    ],
)
def test_a_process_needs_numbers_above_zero(process: Callable[[random.Random], Iterator[float]]) -> None:
    with pytest.raises(ValueError):
        next(process(random.Random(0)))


def test_lengths_are_lognormal_within_their_bounds() -> None:
    rng = random.Random(1)
    drawn = [LognormalLengths(median=300, sigma=0.7, least=1, most=100_000).draw(rng) for _ in range(20_000)]
    assert median(drawn) == pytest.approx(300, rel=0.05)
    assert pstdev(map(math.log, drawn)) == pytest.approx(0.7, rel=0.05)


@given(st.integers(1, 50), st.integers(0, 50), st.integers(0, 50), st.floats(0.01, 5), st.integers(0, 99))
def test_lengths_stay_within_their_bounds(least: int, to_median: int, to_most: int, sigma: float, seed: int) -> None:
    lengths = LognormalLengths(median=least + to_median, sigma=sigma, least=least, most=least + to_median + to_most)
    assert least <= lengths.draw(random.Random(seed)) <= lengths.most


def test_nothing_piles_up_at_a_bound() -> None:
    rng = random.Random(1)
    lengths = LognormalLengths(median=100, sigma=2, least=50, most=200)
    drawn = Counter(lengths.draw(rng) for _ in range(20_000))
    assert drawn[200] < 2 * drawn[190] + 20
    assert drawn[50] < 2 * drawn[55]


@pytest.mark.parametrize("changed", [{"least": 0}, {"least": 11}, {"most": 9}, {"sigma": 0}, {"sigma": float("inf")}])
def test_lengths_refuse_what_makes_no_sense(changed: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        LognormalLengths(**{"median": 10, "sigma": 1, "least": 1, "most": 20} | changed)  # type: ignore[arg-type]


def test_a_fixed_length_is_at_least_one_token() -> None:
    assert FixedLength(3).draw(random.Random(0)) == 3
    with pytest.raises(ValueError):
        FixedLength(0)


def test_independent_requests_share_nothing() -> None:
    rng = random.Random(1)
    trace = independent_requests(rng, poisson_arrivals(rng, 5), 100, prompts=TEXTS, outputs=OUTPUTS)
    assert len(trace) == 100
    assert all(request.block_hashes == () and 10 <= request.prompt_tokens <= 2000 for request in trace)


def sessions(seed: int = 1, count: int = 3000, *tenants: Tenant, **shape: float) -> list[TracedRequest]:
    rng = random.Random(seed)
    made = SessionShape(texts=TEXTS, outputs=OUTPUTS, **shape)  # type: ignore[arg-type]
    return multi_turn_sessions(rng, poisson_arrivals(rng, 2), count, made, tenants or (Tenant(name="default"),))


def by_session(trace: list[TracedRequest]) -> dict[str, list[TracedRequest]]:
    turns = defaultdict(list)
    for request in trace:
        turns[request.session].append(request)
    return turns


def test_sessions_arrive_in_order_and_follow_from_the_seed() -> None:
    trace = sessions()
    assert len(trace) == 3000
    assert trace == sessions() != sessions(2)
    assert [request.arrival_s for request in trace] == sorted(request.arrival_s for request in trace)


def test_each_turn_begins_with_the_turn_before_and_its_answer() -> None:
    for turns in by_session(sessions()).values():
        for before, after in pairwise(turns):
            assert after.prompt_tokens > before.prompt_tokens + before.output_tokens
            assert after.block_hashes[: len(before.block_hashes)] == before.block_hashes
            assert len(after.block_hashes) == after.prompt_tokens // after.block_tokens


def test_sessions_share_nothing_with_one_another() -> None:
    hashes = [{each for turn in turns for each in turn.block_hashes} for turns in by_session(sessions()).values()]
    assert sum(map(len, hashes)) == len(set().union(*hashes))


def test_a_turn_comes_after_the_assumed_answer_and_the_time_to_think() -> None:
    thinking = []
    for turns in by_session(sessions(count=20_000)).values():
        for before, after in pairwise(turns):
            answer_s = 0.5 + 0.03 * (before.output_tokens - 1)
            thinking.append(after.arrival_s - before.arrival_s - answer_s)
    assert min(thinking) > -1e-6
    assert fmean(thinking) == pytest.approx(20, rel=0.05)


def test_the_number_of_turns_is_geometric_with_the_stated_mean() -> None:
    rng = random.Random(1)
    shape = SessionShape(texts=FixedLength(5), outputs=FixedLength(5), mean_turns=3, most_turns=1000)
    ended = multi_turn_sessions(rng, islice(poisson_arrivals(rng, 2), 5000), 10**6, shape)
    assert len(ended) / 5000 == pytest.approx(3, rel=0.05)


def test_no_prompt_exceeds_the_most_tokens_and_no_session_the_most_turns() -> None:
    trace = sessions(most_prompt_tokens=1500, most_turns=5, mean_turns=100)
    assert max(request.prompt_tokens for request in trace) <= 1500
    assert max(len(turns) for turns in by_session(trace).values()) == 5


def test_tenants_share_their_system_prompt_by_weight() -> None:
    small = Tenant(name="small", weight=1, system_prompt_tokens=1000)
    large = Tenant(name="large", weight=3, system_prompt_tokens=640)
    trace = sessions(1, 4000, small, large, mean_turns=1)
    share = Counter(request.tenant for request in trace)
    assert share["large"] / 4000 == pytest.approx(0.75, abs=0.03)
    first = {request.tenant: request.block_hashes for request in trace}
    assert len({request.block_hashes[:10] for request in trace if request.tenant == "large"}) == 1
    assert len({request.block_hashes[:15] for request in trace if request.tenant == "small"}) == 1
    assert not set(first["small"]) & set(first["large"])
    assert len({request.block_hashes[10] for request in trace if len(request.block_hashes) > 15}) > 1


def test_a_system_prompt_leaves_room_for_a_text() -> None:
    with pytest.raises(ValueError, match="'full'"):
        sessions(1, 10, Tenant(name="full", system_prompt_tokens=100), most_prompt_tokens=100)
    tight = sessions(1, 10, Tenant(name="tight", system_prompt_tokens=99), most_prompt_tokens=100)
    assert {request.prompt_tokens for request in tight} == {100}


@pytest.mark.parametrize("changed", [{"mean_turns": 0.5}, {"block_tokens": 0}, {"mean_think_s": -1}])
def test_a_shape_refuses_what_makes_no_sense(changed: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(changed))):
        sessions(1, 1, **changed)


@pytest.mark.parametrize("wrong", [{"weight": 0}, {"system_prompt_tokens": -1}])
def test_a_tenant_refuses_what_makes_no_sense(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        Tenant(name="t", **wrong)


texts = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 40)), max_size=6)


def blocks(appended: list[tuple[int, int]], block_tokens: int) -> PrefixBlocks:
    prompt = PrefixBlocks(block_tokens)
    for content, tokens in appended:
        prompt.append(content, tokens)
    return prompt


@given(texts, texts, texts, st.integers(1, 20))
def test_prompts_share_the_hashes_of_their_common_beginning_and_no_others(
    common: list[tuple[int, int]], one: list[tuple[int, int]], two: list[tuple[int, int]], block_tokens: int
) -> None:
    first = blocks([*common, (10, 30), *one], block_tokens)
    second = blocks([*common, (11, 30), *two], block_tokens)
    shared = sum(tokens for _, tokens in common) // block_tokens
    assert first.hashes[:shared] == second.hashes[:shared]
    assert not set(first.hashes[shared:]) & set(second.hashes[shared:])
    assert len(first.hashes) == first.tokens // block_tokens


def test_hashes_are_the_same_in_every_process() -> None:
    assert blocks([(1, 8), (2, 8)], 8).hashes == [8604414454708915430, 13759462481258334139]
