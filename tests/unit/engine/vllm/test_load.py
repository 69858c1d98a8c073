"""What vLLM's statistics add up to."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

from executor_svc.engine.vllm import load as vllm_load
from executor_svc.engine.vllm.async_llm import time_steps
from executor_svc.engine.vllm.load import ITERATIONS_KEPT, VllmLoad


def details(**values: Any) -> Any:
    usual = {
        "num_ctx_requests": 1,
        "num_ctx_tokens": 20,
        "num_generation_requests": 3,
        "num_generation_tokens": 3,
        "elapsed_ms": 8.0,
        "is_dummy": False,
    }
    return SimpleNamespace(**(usual | values))


def stats(**values: Any) -> Any:
    usual = {
        "num_running_reqs": 4,
        "num_waiting_reqs": 5,
        "num_skipped_waiting_reqs": 2,
        "kv_cache_usage": 0.5,
        "prefix_cache_stats": SimpleNamespace(queries=100, hits=40),
        "iteration_details": details(),
    }
    return SimpleNamespace(**(usual | values))


@pytest.fixture
def load() -> VllmLoad:
    load = VllmLoad()
    load.kv_capacity_tokens = 1000
    return load


async def test_the_latest_snapshot_counts_and_counters_add_up(load: VllmLoad) -> None:
    for _ in range(2):
        load.record(stats(), SimpleNamespace(num_generation_tokens=4))
    assert (load.running, load.waiting, load.blocked, load.kv_used_tokens) == (4, 7, 2, 500)
    assert (load.prefix_queries_tokens, load.prefix_hits_tokens, load.generation_tokens) == (200, 80, 8)
    assert load.iterations == 2


async def test_a_batch_without_statistics_changes_nothing_but_is_a_step(load: VllmLoad) -> None:
    steps: list[int] = []
    load.on_step(lambda: steps.append(1))
    load.record(None, None)
    assert steps == []  # not yet: the readers come first
    await asyncio.sleep(0)
    assert steps == [1]
    assert load.iterations == 0


async def test_an_iteration_says_what_was_computed(load: VllmLoad) -> None:
    load.record(stats(num_running_reqs=0), None)
    (iteration,) = load.take_iterations()
    assert (iteration.index, iteration.prefill_tokens, iteration.decode_tokens, iteration.running) == (1, 20, 3, 4)
    assert iteration.elapsed_s == 0.008
    assert load.take_iterations() == []


async def test_steps_that_overlap_are_reported_as_means_of_eight(
    load: VllmLoad, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The output of a step is late while the prompt behind it is sent: 9 and 1 ms instead of 2 and 8."""
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    load.steps_overlap()
    load.record(stats(), None)  # a first one, whose time is the engine's own: 8 ms
    for took_s in (0.009, 0.001, 0.002, 0.009, 0.001, 0.002, 0.008, 0.002):
        now += took_s
        load.record(stats(iteration_details=details(num_ctx_tokens=100, num_generation_tokens=5)), None)
    (mean,) = load.take_iterations()
    assert (mean.index, mean.steps) == (8, 8)
    assert mean.prefill_tokens == (20 + 7 * 100) // 8
    assert mean.elapsed_s == pytest.approx((0.008 + 0.032) / 8)
    assert load.iterations == 9, "progress counts every step"


async def test_work_that_is_forgotten_is_not_counted_and_its_last_step_is_waited_for(load: VllmLoad) -> None:
    load.record(stats(), SimpleNamespace(num_generation_tokens=4))
    forgetting = asyncio.create_task(load.forget_work(aborted=True))
    await asyncio.sleep(0)
    assert not forgetting.done(), "requests that were aborted are still said to run"

    idle = stats(num_running_reqs=0, num_waiting_reqs=0, num_skipped_waiting_reqs=0, kv_cache_usage=0.0)
    load.record(idle, SimpleNamespace(num_generation_tokens=4))
    await forgetting

    assert (load.running, load.kv_used_tokens) == (0, 0)
    assert (load.generation_tokens, load.prefix_queries_tokens, load.prefix_hits_tokens, load.iterations) == (
        0,
        0,
        0,
        0,
    )
    assert load.take_iterations() == []


async def test_an_engine_that_makes_no_further_step_is_not_waited_for_long(
    load: VllmLoad, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_load, "_LAST_STEP_S", 0.01)
    load.record(stats(), None)
    await load.forget_work(aborted=True)
    assert load.iterations == 0

    load.record(stats(), SimpleNamespace(num_generation_tokens=4))  # the step that ran when its requests were aborted
    assert (load.generation_tokens, load.prefix_queries_tokens, load.iterations) == (0, 0, 0)
    assert load.take_iterations() == []
    load.record(stats(), SimpleNamespace(num_generation_tokens=4))
    assert (load.generation_tokens, load.iterations) == (4, 1)


async def test_steps_of_work_that_is_forgotten_are_in_no_later_mean(load: VllmLoad) -> None:
    load.steps_overlap()
    load.record(stats(num_running_reqs=0, num_waiting_reqs=0, num_skipped_waiting_reqs=0), None)
    await load.forget_work()

    for _ in range(8):
        load.record(stats(iteration_details=details(num_ctx_tokens=100)), None)
    (mean,) = load.take_iterations()
    assert mean.prefill_tokens == 100


async def test_steps_back_to_back_are_timed_from_end_to_end(load: VllmLoad, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    load.record(stats(), None)
    now = 100.050
    load.record(stats(num_running_reqs=0), None)
    now = 200.0
    load.record(stats(), None)  # after idling: only its own time counts
    assert [iteration.elapsed_s for iteration in load.take_iterations()] == pytest.approx([0.008, 0.050, 0.008])


async def test_steps_taken_together_are_timed_by_the_engine_core(load: VllmLoad) -> None:
    ended = iter((50.0, 50.010, 50.040))

    class Core:
        async def get_output_async(self) -> Any:
            return SimpleNamespace(timestamp=next(ended))

    core = Core()
    time_steps(core, load)
    for _ in range(3):
        await core.get_output_async()
        load.record(stats(), None)
    assert [iteration.elapsed_s for iteration in load.take_iterations()] == pytest.approx([0.008, 0.010, 0.030])


async def test_steps_without_tokens_are_no_progress(load: VllmLoad) -> None:
    load.record(stats(iteration_details=None), None)
    load.record(stats(iteration_details=details(is_dummy=True)), None)
    assert load.iterations == 0
    assert load.take_iterations() == []


async def test_the_latest_iterations_are_kept(load: VllmLoad) -> None:
    for _ in range(ITERATIONS_KEPT + 10):
        load.record(stats(), None)
    taken = load.take_iterations()
    assert len(taken) == ITERATIONS_KEPT
    assert taken[-1].index == ITERATIONS_KEPT + 10
