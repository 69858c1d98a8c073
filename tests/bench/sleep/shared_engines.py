"""The engines that take turns: simulated ones, or vLLM on one GPU that holds one of them."""

from __future__ import annotations

from pathlib import Path

from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.settings import EngineSettings
from executor_svc.engine.simulated.settings import SimulatedSettings
from executor_svc.engine.vllm.settings import VllmSettings
from tests.bench.engines import Engine

STREAMS = 32
GPU_SHARE = 0.6  # of the memory: two do not fit


def simulated() -> Engine:
    """Return an engine whose times are made up: an exchange takes 1.5 s."""
    settings = SimulatedSettings(
        step_base_s=0.01,
        step_per_sequence_s=0.0,
        kv_capacity_tokens=2_048 * STREAMS,
        max_running=STREAMS,
        mean_output_tokens=1_000_000,
        sleep_mode=True,
        sleep_s=0.5,
        wake_s=1.0,
    )
    model = ModelSettings(model="simulated")
    return Engine(settings=EngineSettings(kind="simulated", model=model, simulated=settings), start_timeout_s=30.0)


def gpu(model: Path) -> Engine:
    """Return an engine with 0.6 of a GPU's memory.  ``model``: as ``tests.bench.pd.wide_model`` writes it."""
    settings = VllmSettings(
        max_model_len=2_048, max_running=STREAMS, gpu_memory_utilization=GPU_SHARE, enforce_eager=True, sleep_mode=True
    )
    named = ModelSettings(model=str(model.resolve()))
    return Engine(settings=EngineSettings(kind="vllm", model=named, vllm=settings), start_timeout_s=400.0)
