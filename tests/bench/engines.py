"""The engines that benchmarks run on: for an executor as flags, for ``direct_engine`` as a configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.settings import EngineSettings
from executor_svc.engine.simulated.settings import SimulatedSettings
from executor_svc.engine.vllm.settings import VllmSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class Engine:
    """The same engine for both arms: behind an executor, and called in a process without one."""

    settings: EngineSettings
    start_timeout_s: float
    bound_to: int | None = None  # the core its computing is bound to
    settle_s: float = 0.0  # after its last step, until it leaves the cores to others
    environment: Mapping[str, str] = field(default_factory=dict)  # further variables of its executor's process

    @property
    def executor_flags(self) -> tuple[str, ...]:
        """What ``python -m executor_svc`` is told, beside where its scheduler is."""
        settings = self.settings
        flags = ["--engine.kind", settings.kind, "--model", settings.model.model]
        if settings.model.served_name:
            flags += ["--engine.model.served-name", settings.model.served_name]
        for kind, section in (("simulated", settings.simulated), ("vllm", settings.vllm)):
            flags += [
                _flag(f"engine.{kind}.{name.replace('_', '-')}", value)
                for name, value in section.model_dump(exclude_defaults=True).items()
            ]
        return tuple(flags)


def with_engine_args(engine: Engine, further: Mapping[str, Any]) -> Engine:
    """Return a vLLM engine with further arguments, by vLLM's own names."""
    vllm = engine.settings.vllm
    vllm = vllm.model_copy(update={"engine_args": {**vllm.engine_args, **further}})
    return replace(engine, settings=engine.settings.model_copy(update={"vllm": vllm}))


def _flag(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    return f"--{name}={json.dumps(value) if isinstance(value, dict) else value}"


def simulated(*, step_s: float, streams: int) -> Engine:
    """A step takes ``step_s`` seconds whatever is in it, and everything fits that ``streams`` requests need."""
    settings = SimulatedSettings(
        step_base_s=step_s,
        step_per_sequence_s=0.0,
        prefill_tokens_per_s=1e9,
        kv_capacity_tokens=max(16_384, 2_048 * streams),
        max_running=streams,
    )
    model = ModelSettings(model="simulated")
    return Engine(settings=EngineSettings(kind="simulated", model=model, simulated=settings), start_timeout_s=30.0)


def wide_vllm(model: Path, *, streams: int, gpu_share: float) -> Engine:
    """A real vLLM engine on a GPU that it shares with others, compiled as vLLM does by default.

    ``model``: as ``tests.bench.pd.wide_model`` writes it.  ``gpu_share``: of the GPU's memory, must be free at its
    start; its KV cache holds 220,000 tokens.
    """
    settings = VllmSettings(
        max_model_len=2_048, max_running=streams, gpu_memory_utilization=gpu_share, kv_cache_bytes=24 << 30
    )
    named = ModelSettings(model=str(model.resolve()), served_name="model")
    return Engine(settings=EngineSettings(kind="vllm", model=named, vllm=settings), start_timeout_s=400.0, settle_s=0.2)


def tiny_vllm(model: Path, *, streams: int) -> Engine:
    """A real vLLM engine on the CPU with the tiny model, bound to core 0."""
    settings = VllmSettings(
        max_model_len=2_048,
        max_running=streams,
        kv_cache_bytes=1 << 29,
        enforce_eager=True,
        cpu_cores="0",
    )
    return Engine(
        settings=EngineSettings(kind="vllm", model=ModelSettings(model=str(model)), vllm=settings),
        start_timeout_s=180.0,
        bound_to=0,
        settle_s=1.5,  # its processes spin for a second
    )
