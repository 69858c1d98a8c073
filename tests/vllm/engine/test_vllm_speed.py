"""What is measured of a real engine before its first request, beside what requests then take."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from statistics import median

import pytest

from executor_svc.engine.speed_probe import measured_speed
from executor_svc.engine.vllm.serving import VllmEngine
from executor_svc.runtime.engine_port import EngineLoad, EngineRequest, Iteration, Sampling
from sage_common.speed_measurement import ROUNDS
from scheduler_svc.domain.load_report import IterationSample
from scheduler_svc.domain.prediction.pace import CPU_PRIOR, GPU_PRIOR, Pace
from scheduler_svc.domain.prediction.predictor import Predictor

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]

WITHIN = 1.5  # times
RUNS = 5
PROMPT_TOKENS = 900
OUTPUT_TOKENS = 40
TOGETHER = 4


async def test_the_shared_engine_was_measured_and_counts_nothing_of_it(
    engine: VllmEngine, first_loads: Sequence[EngineLoad]
) -> None:
    measured, [load] = engine.facts.measured, first_loads
    assert {each.running for each in measured} >= {1, TOGETHER}
    assert max(each.prefill_tokens for each in measured) >= PROMPT_TOKENS
    assert sum(each.steps for each in measured) >= 16 * ROUNDS
    counted = (load.prompt_tokens_total, load.generation_tokens_total, load.prefix_queries_tokens, load.unfinished)
    assert counted == (0, 0, 0, 0)


async def test_requests_take_as_long_as_the_measured_speed_says(engine: VllmEngine) -> None:
    """A prompt's first token, and a token of a few streams, by the pace that the scheduler would learn.

    Runs differ where other work shares the machine.  So each run is measured and served at once, the median of the runs
    counts, and where the bare times alone differ by more than is allowed the test says so instead of failing.
    """
    first, token = [], []
    for run in range(RUNS):
        pace = pace_of(engine, await measured_speed(engine, 30.0))
        first.append((await first_token_s(engine, run), pace.iteration_s(PROMPT_TOKENS, 1, PROMPT_TOKENS)))
        token.append((await token_s(engine, run), pace.iteration_s(0, TOGETHER, TOGETHER * OUTPUT_TOKENS)))
    for name, times in (("first token", first), ("token", token)):
        ratios, taken = [t / predicted for t, predicted in times], [t for t, _ in times]
        print(f"{name}: taken by predicted {', '.join(f'{each:.2f}' for each in ratios)}; ms {1e3 * median(taken):.1f}")
        if max(taken) > WITHIN * min(taken) and not 1 / WITHIN < median(ratios) < WITHIN:
            pytest.skip(f"bare times of a {name} differ by {max(taken) / min(taken):.1f} times: {taken}")
        assert 1 / WITHIN < median(ratios) < WITHIN


def pace_of(engine: VllmEngine, measured: Sequence[Iteration]) -> Pace:
    samples = [
        IterationSample(
            prefill_tokens=each.prefill_tokens,
            decode_tokens=each.decode_tokens,
            running=each.running,
            kv_used_tokens=each.kv_used_tokens,
            elapsed_s=each.elapsed_s,
        )
        for each in measured
    ]
    prior = GPU_PRIOR if engine.facts.gpu_count else CPU_PRIOR
    return Predictor(prior, forgetting=0.995, measured=samples).pace


def request(name: str, prompt_tokens: int, output_tokens: int) -> EngineRequest:
    source = random.Random(name)
    return EngineRequest(
        engine_request_id=name,
        prompt_token_ids=[source.randrange(20, 4_000) for _ in range(prompt_tokens)],
        sampling=Sampling(max_tokens=output_tokens, ignore_eos=True),
    )


async def first_token_s(engine: VllmEngine, run: int) -> float:
    began_at = time.monotonic()
    async for _ in engine.generate(request(f"first/{run}", PROMPT_TOKENS, 1)):
        return time.monotonic() - began_at
    raise AssertionError("a request has a token")


async def token_s(engine: VllmEngine, run: int) -> float:
    """Return the seconds per output token of streams that decode together."""

    async def stream(number: int) -> float:
        times = []
        async for _ in engine.generate(request(f"together/{run}/{number}", 16, OUTPUT_TOKENS)):
            times.append(time.monotonic())
        return (times[-1] - times[0]) / (OUTPUT_TOKENS - 1)

    return median(await asyncio.gather(*(stream(number) for number in range(TOGETHER))))
