"""Predictions come from what engines report, and say how good they are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler_svc.domain.load_report import IterationSample, LoadReport
from scheduler_svc.domain.prediction.iteration_model import IterationModel
from scheduler_svc.domain.prediction.pace import CPU_PRIOR, GPU_PRIOR, Pace, prior_pace
from scheduler_svc.domain.prediction.predictor import Predictor
from tests.contract.policies.modelled_fleet import make_facts, make_load

FAST = Pace(base_s=2e-3, prefill_token_s=1e-5, running_s=2e-5, kv_token_s=1e-8)
SLOW = Pace(base_s=5e-2, prefill_token_s=1e-3, running_s=5e-3, kv_token_s=1e-6)


def iterations(pace: Pace, n: int, *, noise: float = 0.0, seed: int = 1) -> Iterator[IterationSample]:
    random = Random(seed)
    for _ in range(n):
        prefill = random.choice([0, 0, 0, random.randrange(2_048)])
        running, kv = random.randrange(1, 65), random.randrange(60_000)
        yield IterationSample(
            prefill_tokens=prefill,
            decode_tokens=running,
            running=running,
            kv_used_tokens=kv,
            elapsed_s=pace.iteration_s(prefill, running, kv) * random.uniform(1 - noise, 1 + noise),
        )


def heartbeat(*samples: IterationSample, queried: int = 0, hit: int = 0) -> LoadReport:
    return make_load(samples=samples, prefix_queries_tokens=queried, prefix_hits_tokens=hit)


def learned(pace: Pace, n: int, *, prior: Pace = GPU_PRIOR, noise: float = 0.0) -> Pace:
    """What is believed after so many iterations, sixteen to a heartbeat."""
    return teach(Predictor(prior, forgetting=0.995), iterations(pace, n, noise=noise)).pace


def teach(predictor: Predictor, samples: Iterable[IterationSample]) -> Predictor:
    left = list(samples)
    while left:
        predictor.learn(heartbeat(*left[:16]))
        del left[:16]
    return predictor


def worst_error(pace: Pace, truth: Pace) -> float:
    """Over a range of iterations, relative."""
    return max(
        abs(pace.iteration_s(p, r, kv) / truth.iteration_s(p, r, kv) - 1)
        for p in (0, 100, 2_000)
        for r in (1, 60)
        for kv in (0, 50_000)
    )


def test_before_the_first_report_the_prior_holds() -> None:
    assert Predictor(GPU_PRIOR, forgetting=0.995).pace == GPU_PRIOR
    assert prior_pace(make_facts()) == CPU_PRIOR


@pytest.mark.parametrize("truth", [FAST, SLOW])
@pytest.mark.parametrize("prior", [GPU_PRIOR, CPU_PRIOR])
def test_the_engine_s_own_pace_is_found_whatever_the_prior(truth: Pace, prior: Pace) -> None:
    assert worst_error(learned(truth, 400, prior=prior), truth) < 0.1


def test_noise_does_not_bias_it() -> None:
    assert worst_error(learned(SLOW, 2_000, noise=0.5), SLOW) < 0.15


def test_after_ten_iterations_it_is_nearer_than_the_prior() -> None:
    assert worst_error(learned(SLOW, 10), SLOW) < 0.5 * worst_error(GPU_PRIOR, SLOW)


def test_a_single_hiccup_does_not_spoil_it() -> None:
    predictor = teach(Predictor(GPU_PRIOR, forgetting=0.995), iterations(FAST, 300))
    hiccup = IterationSample(prefill_tokens=0, decode_tokens=30, running=30, kv_used_tokens=30_000, elapsed_s=5.0)

    predictor.learn(heartbeat(hiccup))

    assert worst_error(predictor.pace, FAST) < 0.3


def test_it_follows_an_engine_that_becomes_slower() -> None:
    predictor = Predictor(GPU_PRIOR, forgetting=0.98)

    teach(predictor, (*iterations(FAST, 500), *iterations(SLOW, 500, seed=2)))

    assert worst_error(predictor.pace, SLOW) < 0.25


def test_a_load_that_never_varies_leaves_sane_coefficients() -> None:
    """Thousands of equal iterations say nothing of prefill; it keeps the prior's shape at the engine's scale."""
    model = IterationModel(GPU_PRIOR, forgetting=0.995)
    same = IterationSample(prefill_tokens=0, decode_tokens=4, running=4, kv_used_tokens=1_000, elapsed_s=0.080)
    for _ in range(20_000):
        model.learn(same)

    pace = model.solve()

    assert pace.iteration_s(0, 4, 1_000) == pytest.approx(0.080, rel=0.02)
    scale = 0.080 / GPU_PRIOR.iteration_s(0, 4, 1_000)
    assert pace.prefill_token_s == pytest.approx(GPU_PRIOR.prefill_token_s * scale, rel=0.05)


def test_no_coefficient_is_negative() -> None:
    """Iterations that get faster with more sequences fit best with a negative slope."""
    model = IterationModel(GPU_PRIOR, forgetting=0.995)
    for n in range(1, 60):
        model.learn(IterationSample(prefill_tokens=0, decode_tokens=n, running=n, kv_used_tokens=n, elapsed_s=0.1 / n))

    pace = model.solve()

    assert min(pace.base_s, pace.prefill_token_s, pace.running_s, pace.kv_token_s) >= 0


def test_it_knows_its_own_error() -> None:
    predictor = Predictor(GPU_PRIOR, forgetting=0.98)
    predictor.learn(heartbeat(*iterations(SLOW, 5)))
    early = predictor.accuracies()["iteration"]
    for n in range(20):
        predictor.learn(heartbeat(*iterations(SLOW, 16, seed=n)))

    late = predictor.accuracies()["iteration"]

    assert early.relative_error > 0.5
    assert early.bias_s < 0, "the prior took the engine for faster"
    assert late.relative_error < 0.05
    assert late.count == 5 + 20 * 16


def test_of_many_iterations_in_a_heartbeat_a_few_are_taken() -> None:
    predictor = Predictor(GPU_PRIOR, forgetting=0.98)

    predictor.learn(heartbeat(*iterations(SLOW, 256)))

    assert predictor.samples == 16


def test_iterations_that_do_nothing_are_learned_from_as_well() -> None:
    """Where everything waits for KV; what such a one takes may be believed to be nothing."""
    idle = IterationSample(prefill_tokens=0, decode_tokens=0, running=0, kv_used_tokens=0, elapsed_s=1e-9)
    busy = [
        IterationSample(prefill_tokens=p, decode_tokens=0, running=1, kv_used_tokens=p, elapsed_s=2e-8 * p * p)
        for p in (512, 2_048, 1_024) * 30
    ]
    predictor = teach(Predictor(GPU_PRIOR, forgetting=0.995), busy)
    assert predictor.pace.iteration_s(0, 0, 0) == 0
    believed = predictor.pace.iteration_s(1_024, 1, 1_024)
    for elapsed_s in (1e-9, 0.3):
        teach(predictor, [replace(idle, elapsed_s=elapsed_s)] * 20)
        teach(predictor, busy)
        assert predictor.pace.iteration_s(1_024, 1, 1_024) == pytest.approx(believed, rel=0.2)


@given(
    samples=st.lists(
        st.builds(
            IterationSample,
            prefill_tokens=st.sampled_from([0, 0, 1, 512, 8_192]),
            decode_tokens=st.just(0),
            running=st.sampled_from([0, 0, 1, 64]),
            kv_used_tokens=st.sampled_from([0, 0, 1, 500_000]),
            elapsed_s=st.sampled_from([1e-9, 1e-4, 0.02, 600.0]),
        ),
        max_size=100,
    ),
    prior=st.sampled_from([GPU_PRIOR, CPU_PRIOR]),
)
def test_whatever_is_reported_the_coefficients_are_finite_and_not_negative(
    samples: list[IterationSample], prior: Pace
) -> None:
    pace = teach(Predictor(prior, forgetting=0.995), samples).pace
    for coefficient in (pace.base_s, pace.prefill_token_s, pace.running_s, pace.kv_token_s):
        assert 0 <= coefficient < math.inf


def test_what_first_tokens_come_late_by_is_told_with_the_margins() -> None:
    predictor = Predictor(GPU_PRIOR, forgetting=0.98)
    assert (predictor.margins.alone_delay_s, predictor.margins.behind_delay_s) == (0, 0)

    for _ in range(3):
        predictor.prompt_computed(0.1, 0.13, step_s=0.04, alone=True)
        predictor.prompt_computed(0.1, 0.15, step_s=0.04, alone=False)

    assert predictor.margins.alone_delay_s == pytest.approx(0.03)
    assert predictor.margins.behind_delay_s == pytest.approx(0.05)


def test_iterations_without_a_duration_teach_nothing() -> None:
    predictor = Predictor(GPU_PRIOR, forgetting=0.98)
    nothing = IterationSample(prefill_tokens=1, decode_tokens=1, running=1, kv_used_tokens=1, elapsed_s=0.0)

    assert not predictor.learn(heartbeat(nothing))
    assert predictor.pace == GPU_PRIOR


@pytest.mark.parametrize("number", [5, 20, 33, 60])
def test_iterations_that_were_measured_first_teach_as_those_of_heartbeats_do(number: int) -> None:
    """The prior is far off: no iteration is weighed by it once others were learned from."""
    measured = list(iterations(SLOW, number, noise=0.3))
    times = -(-32 // number)

    first = Predictor(GPU_PRIOR, forgetting=0.995, measured=measured)

    assert first.pace == teach(Predictor(GPU_PRIOR, forgetting=0.995), measured * times).pace


def test_prompts_that_the_prefix_cache_holds_need_less_prefill() -> None:
    predictor = Predictor(GPU_PRIOR, forgetting=0.98)
    assert predictor.uncached_share == 1

    predictor.learn(heartbeat(queried=1_000, hit=750))
    assert predictor.uncached_share == pytest.approx(0.25)

    for n in range(2, 60):
        predictor.learn(heartbeat(queried=n * 1_000, hit=750))
    assert predictor.uncached_share > 0.99, "and more again once it does not"
