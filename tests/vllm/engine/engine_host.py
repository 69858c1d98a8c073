"""A process that owns an engine, for tests that kill it: ``python -m tests.vllm.engine.engine_host MODEL``.

Prints each state it reaches, a line each, then generates until it is ended.
"""

from __future__ import annotations

import asyncio
import sys

from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.vllm.lifeline import watch_executor_if_spawned
from executor_svc.engine.vllm.settings import VllmSettings
from executor_svc.engine.vllm.starting import VllmEngineFactory
from executor_svc.runtime.engine_port import EngineRequest, EngineState, Sampling

watch_executor_if_spawned()

SETTINGS = VllmSettings(dtype="float32", enforce_eager=True, max_model_len=1024, kv_cache_bytes=64 << 20, cpu_cores="0")


def say(state: EngineState, fraction: float | None, message: str) -> None:
    print(f"state {state.value}", flush=True)


async def main(model: str) -> None:
    engine = await VllmEngineFactory(ModelSettings(model=model), SETTINGS).start(say)
    for number in range(1_000_000):
        request = EngineRequest(
            engine_request_id=str(number),
            prompt_token_ids=[20, 21, 22],
            sampling=Sampling(max_tokens=500, ignore_eos=True),
        )
        async for _ in engine.generate(request):
            pass


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
