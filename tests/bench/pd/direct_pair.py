"""The other arm of the handoff benchmark: two engines in one process, which hands the KV over itself.

Run as a child: reads one line of two engine settings, then one line per task, all JSON; answers each with a line.
Bare AsyncLLMs with the executor's engine arguments; none of the control plane's code between them.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from executor_svc.engine.settings import EngineSettings
from executor_svc.engine.vllm.arguments import engine_arguments, set_environment
from executor_svc.engine.vllm.kv_connectors import connector_named
from tests.bench.child import Child, child
from tests.bench.engines import Engine
from tests.support.free_port import free_port

READY = "direct pair: ready"
RESULT = "direct pair: result "
TASK_TIMEOUT_S = 120.0
MAX_TOKENS = 4


# --- the benchmark's side -------------------------------------------------------------------------------------------


class DirectPair:
    def __init__(self, process: Child) -> None:
        self._process = process

    async def first_token_s(self, prompt: list[int], *, split: bool) -> float:
        """Seconds to the first token of a request that runs alone."""
        await self._process.tell(json.dumps({"prompt": prompt, "split": split}))
        line = await self._process.wait_for(RESULT, TASK_TIMEOUT_S)
        taken: float = json.loads(line.partition(RESULT)[2])
        return taken


@asynccontextmanager
async def direct_pair(prefill: Engine, decode: Engine) -> AsyncIterator[DirectPair]:
    async with child("direct pair", "tests.bench.pd.direct_pair") as process:
        await process.tell(json.dumps([engine.settings.model_dump(mode="json") for engine in (prefill, decode)]))
        await process.wait_for(READY, prefill.start_timeout_s + decode.start_timeout_s)
        yield DirectPair(process)


# --- the child's side -----------------------------------------------------------------------------------------------


async def _started(settings: EngineSettings, device: str) -> Any:
    set_environment(settings.vllm, os.environ, free_port())
    from vllm.config import KVTransferConfig
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    transfer = settings.vllm.kv_transfer
    config = KVTransferConfig(**connector_named(transfer.connector).config(transfer, device))
    arguments = engine_arguments(settings.model, settings.vllm, settings.model.model)
    llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments, kv_transfer_config=config))
    if settings.vllm.cpu_cores is not None:
        await llm.collective_rpc("compute_on_own_cores")  # as the executor does: both would compute on one scheduler
    return llm


class _Pair:
    """Requests run alone, one after the other."""

    def __init__(self, prefill: Any, decode: Any, request: dict[str, Any]) -> None:
        self._prefill = prefill
        self._decode = decode
        self._request = request  # kv_transfer_params of a prefill leg
        self._number = 0

    async def first_token_s(self, prompt: list[int], *, split: bool) -> float:
        began = time.perf_counter()
        params = await self._prefilled(prompt) if split else None
        first = 0.0
        async for _ in self._generate(self._decode, prompt, MAX_TOKENS, params):
            first = first or time.perf_counter() - began
        return first

    async def _prefilled(self, prompt: list[int]) -> dict[str, Any]:
        params: dict[str, Any] | None = None
        async for output in self._generate(self._prefill, prompt, 1, self._request):
            params = output.kv_transfer_params
        if not params:
            raise RuntimeError("prefill gave no kv_transfer_params")
        return params

    def _generate(
        self, llm: Any, prompt: list[int], max_tokens: int, params: dict[str, Any] | None
    ) -> AsyncIterator[Any]:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        self._number += 1
        sampling = SamplingParams(
            temperature=0.0,
            max_tokens=max_tokens,
            ignore_eos=True,
            output_kind=RequestOutputKind.DELTA,
            extra_args={"kv_transfer_params": params} if params else None,
        )
        stream: AsyncIterator[Any] = llm.generate({"prompt_token_ids": prompt}, sampling, f"direct-{self._number}")
        return stream


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lines.feed_eof)
    settings = [EngineSettings.model_validate(each) for each in json.loads(await lines.readline())]
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    engines: list[Any] = []
    try:
        for each in settings:
            engines.append(await _started(each, device))
        request = dict(connector_named(settings[0].vllm.kv_transfer.connector).prefill_params())
        pair = _Pair(engines[0], engines[1], request)
        print(READY, flush=True)
        while line := await lines.readline():
            print(RESULT + json.dumps(await pair.first_token_s(**json.loads(line))), flush=True)
    finally:
        for engine in engines:
            engine.shutdown()


if __name__ == "__main__":
    asyncio.run(_serve())
