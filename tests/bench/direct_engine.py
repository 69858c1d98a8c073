"""The other arm: an engine called in its own process, with no control plane around it.

Run as a child: reads one line of engine settings, then one line per workload, all JSON; answers each with a line.
A simulated engine is called through the executor's port.  A vLLM engine is a bare AsyncLLM with the executor's
engine arguments, none of the executor's code around it, and text made by vLLM itself: what an application has that
runs vLLM inside.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from executor_svc.engine.factory import engine_factory
from executor_svc.engine.settings import EngineSettings
from executor_svc.engine.vllm.arguments import engine_arguments, set_environment
from executor_svc.runtime.engine_port import Engine as PortEngine
from executor_svc.runtime.engine_port import EngineRequest, Sampling
from tests.bench.child import Child, child
from tests.bench.engines import Engine
from tests.bench.workload import Workload

READY = "direct engine: ready"
RESULT = "direct engine: result "
RUN_TIMEOUT_S = 120.0

Generate = Callable[[str, list[int], int], Awaitable[int]]
"""Engine request id, prompt, max_tokens: runs it to its end and returns the number of output tokens."""


# --- the benchmark's side -------------------------------------------------------------------------------------------


class DirectEngine:
    def __init__(self, process: Child) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    async def run(self, workload: Workload) -> tuple[float, float]:
        """Wall seconds and CPU seconds (of the whole process) that it took."""
        before = self._process.cpu_s()
        await self._process.tell(json.dumps(dataclasses.asdict(workload)))
        line = await self._process.wait_for(RESULT, RUN_TIMEOUT_S)
        wall_s = json.loads(line.partition(RESULT)[2])["wall_s"]
        return wall_s, self._process.cpu_s() - before


@asynccontextmanager
async def direct_engine(engine: Engine) -> AsyncIterator[DirectEngine]:
    async with child("direct engine", "tests.bench.direct_engine") as process:
        await process.tell(engine.settings.model_dump_json())
        await process.wait_for(READY, engine.start_timeout_s)
        yield DirectEngine(process)


# --- the child's side -----------------------------------------------------------------------------------------------


async def simulated_generate(engine: PortEngine) -> Generate:
    async def generate(request_id: str, prompt: list[int], max_tokens: int) -> int:
        sampling = Sampling(temperature=0.0, max_tokens=max_tokens, ignore_eos=True)
        request = EngineRequest(engine_request_id=request_id, prompt_token_ids=prompt, sampling=sampling)
        tokens = 0
        async for output in engine.generate(request):
            tokens += len(output.token_ids)
        return tokens

    return generate


def _vllm_generate(llm: Any) -> Generate:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    async def generate(request_id: str, prompt: list[int], max_tokens: int) -> int:
        params = SamplingParams(
            temperature=0.0, max_tokens=max_tokens, ignore_eos=True, output_kind=RequestOutputKind.DELTA
        )
        tokens = 0
        async for output in llm.generate({"prompt_token_ids": prompt}, params, request_id):
            tokens += len(output.outputs[0].token_ids)
        return tokens

    return generate


@asynccontextmanager
async def _started(settings: EngineSettings) -> AsyncIterator[Generate]:
    if settings.kind == "simulated":
        engine = await engine_factory(settings).start(lambda state, progress, message: None)
        try:
            yield await simulated_generate(engine)
        finally:
            await engine.shutdown()
        return
    set_environment(settings.vllm, os.environ)
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    arguments = engine_arguments(settings.model, settings.vllm, settings.model.model)
    llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
    try:
        yield _vllm_generate(llm)
    finally:
        llm.shutdown()


async def _run(generate: Generate, workload: Workload) -> float:
    async def one(stream: int, requests: list[tuple[list[int], int]]) -> int:
        tokens = 0
        for turn, (prompt, max_tokens) in enumerate(requests):
            tokens += await generate(f"{workload.seed}-{stream}-{turn}", prompt, max_tokens)
        return tokens

    requests = workload.requests()
    started = time.perf_counter()
    tokens = sum(await asyncio.gather(*(one(stream, each) for stream, each in enumerate(requests))))
    if tokens != workload.output_tokens:
        raise RuntimeError(f"{tokens} tokens came of {workload.output_tokens}")
    return time.perf_counter() - started


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lines.feed_eof)
    async with _started(EngineSettings.model_validate_json(await lines.readline())) as generate:
        print(READY, flush=True)
        while line := await lines.readline():
            wall_s = await _run(generate, Workload(**json.loads(line)))
            print(RESULT + json.dumps({"wall_s": wall_s}), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve())
