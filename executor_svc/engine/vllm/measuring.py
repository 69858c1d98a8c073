"""Measures a vLLM engine's speed at the end of its start."""

from __future__ import annotations

import time
from dataclasses import replace

from executor_svc.engine.speed_probe import measured_speed
from executor_svc.engine.vllm.load import VllmLoad
from executor_svc.runtime.engine_port import Engine, EngineFacts


async def measured_facts(engine: Engine, load: VllmLoad, limit_s: float) -> EngineFacts:
    """Measure how fast the engine is, and have its load count work from then on; return its facts with the speed.

    It takes about ``limit_s`` seconds at most; with 0 nothing is measured.  Raises EngineDeadError.
    """
    began_at = time.monotonic()
    facts = replace(engine.facts, measured=await measured_speed(engine, limit_s))
    await load.forget_work(aborted=0 < limit_s <= time.monotonic() - began_at)
    return facts
