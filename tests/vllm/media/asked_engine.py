"""A real engine of a tiny model in the test's own process, and how a test asks it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.vllm.serving import VllmEngine
from executor_svc.engine.vllm.settings import VllmSettings
from executor_svc.engine.vllm.starting import VllmEngineFactory
from executor_svc.runtime.engine_port import EngineMedia, EngineRequest, Sampling
from sage_media.kinds import MediaKind
from tests.support.engine_process import ONE_PROCESS

TOKENS = 24


@asynccontextmanager
async def started(model: Path, max_model_len: int) -> AsyncIterator[VllmEngine]:
    settings = VllmSettings(
        dtype="float32",
        enforce_eager=True,
        max_running=4,
        max_model_len=max_model_len,
        kv_cache_bytes=64 << 20,
        cpu_cores="0",
    )
    factory = VllmEngineFactory(ModelSettings(model=str(model), served_name="media"), settings, measure_speed_s=20.0)
    # An engine sets variables that executors of the same test run must not inherit.
    with patch.dict(os.environ, ONE_PROCESS):
        engine = await factory.start(lambda *report: None)
        yield engine
        await engine.shutdown()


def request(
    name: str, prompt: Sequence[int], kind: MediaKind, contents: Sequence[bytes], each_tokens: int, **more: Any
) -> EngineRequest:
    """``each_tokens``: that each of ``contents`` takes."""
    found = tuple(EngineMedia(kind=kind, data=each, digest=hashlib.sha256(each).hexdigest()) for each in contents)
    return EngineRequest(
        engine_request_id=name,
        prompt_token_ids=prompt,
        sampling=Sampling(temperature=0.0, max_tokens=TOKENS, ignore_eos=True),
        media=found,
        media_tokens=len(found) * (each_tokens - 1),
        **more,
    )


async def tokens_of(engine: VllmEngine, wanted: EngineRequest) -> list[int]:
    return [token async for output in engine.generate(wanted) for token in output.token_ids]


async def asked_directly(engine: VllmEngine, name: str, prompt: Sequence[int], data: dict[str, Any]) -> list[int]:
    """What vLLM makes of content that its caller decoded, without a digest.  ``data``: its multi_modal_data."""
    from vllm import SamplingParams

    given = {"prompt_token_ids": list(prompt), "multi_modal_data": data}
    params = SamplingParams(temperature=0.0, max_tokens=TOKENS, ignore_eos=True)
    found: list[int] = []
    async for result in engine._llm.generate(given, params, f"direct/{name}"):
        found = list(result.outputs[0].token_ids)
    return found
