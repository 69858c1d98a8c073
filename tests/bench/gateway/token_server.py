"""vLLM's own OpenAI server over an engine that costs next to nothing: every stream gets a token at each beat.

What is measured is the server alone.  Outputs reach it as vLLM's engine hands them over, in a RequestOutputCollector;
what AsyncLLM itself costs, detokenization above all, is left out.

Run as a child: ``token_server ADDRESS PORT STEP_S``, with the scheduler from which the model's files are fetched.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sage_client import AsyncClient, Model, ModelFiles
from sage_common.event_loop import loop_factory
from sage_gateway.http_call import current_call
from sage_gateway.vllm_server.engine_client import FleetEngineClient
from sage_gateway.vllm_server.model_application import ApplicationBuilder
from tests.bench.child import Child, child
from tests.bench.light_executors import TEXT, TOKEN_ID
from tests.support.free_port import free_port

READY = "token server: ready"
START_TIMEOUT_S = 120.0


# --- the benchmark's side -------------------------------------------------------------------------------------------


@asynccontextmanager
async def token_server(address: str, step_s: float) -> AsyncIterator[tuple[Child, int]]:
    """The server's process and its port."""
    port = free_port()
    async with child("token server", "tests.bench.gateway.token_server", address, str(port), str(step_s)) as process:
        await process.wait_for(READY, START_TIMEOUT_S)
        yield process, port


# --- the child's side -----------------------------------------------------------------------------------------------


class _Running:
    def __init__(self, prompt_token_ids: list[int], params: Any, request_id: str) -> None:
        from vllm.v1.engine.output_processor import RequestOutputCollector

        self.prompt_token_ids = prompt_token_ids
        self.left = params.max_tokens
        self.request_id = request_id
        self.collector = RequestOutputCollector(params.output_kind, request_id)


class _TokenEngine(FleetEngineClient):
    """Gives every running request a token at each beat."""

    step_s = 0.01

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._running: dict[str, _Running] = {}
        self._beats: asyncio.Task[None] | None = None

    async def generate(
        self, prompt: Any, sampling_params: Any, request_id: str, **options: Any
    ) -> AsyncGenerator[Any, None]:
        """Yield the outputs of a request as AsyncLLM does."""
        self._beats = self._beats or asyncio.create_task(self._beat())
        token_ids = self._prompt(current_call(), prompt, None).token_ids
        running = self._running[request_id] = _Running(token_ids, sampling_params, request_id)
        try:
            finished = False
            while not finished:
                output = running.collector.get_nowait() or await running.collector.get()
                finished = output.finished
                yield output
        finally:
            self._running.pop(request_id, None)

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + self.step_s, loop.time())
            await asyncio.sleep(due - loop.time())
            for each in list(self._running.values()):
                self._step(each)

    def _step(self, running: _Running) -> None:
        from vllm.outputs import CompletionOutput, RequestOutput

        running.left -= 1
        over = not running.left
        output = CompletionOutput(0, TEXT, [TOKEN_ID], None, None, finish_reason="length" if over else None)
        made = RequestOutput(running.request_id, None, running.prompt_token_ids, None, [output], over)
        running.collector.put(made)
        if over:
            del self._running[running.request_id]


class _Builder(ApplicationBuilder):
    def _engine(self, config: Any, model: Model) -> FleetEngineClient:
        return _TokenEngine(config, model.name, self._clients, self._trouble)


async def _files(address: str) -> ModelFiles:
    async with AsyncClient(address) as client:
        [model] = await client.models()
        return await client.get_model_files(model.name)


async def _serve(address: str, port: int) -> None:
    import uvicorn

    with tempfile.TemporaryDirectory() as directory:
        application = await _Builder(None, Path(directory)).build(await _files(address))  # type: ignore[arg-type]
        config = uvicorn.Config(application, port=port, log_level="error", access_log=False, lifespan="off")
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.05)
        print(READY, flush=True)
        await serving


def _main() -> None:
    _TokenEngine.step_s = float(sys.argv[3])
    with asyncio.Runner(loop_factory=loop_factory(uvloop=True)) as runner:  # as vLLM runs its server
        runner.run(_serve(sys.argv[1], int(sys.argv[2])))


if __name__ == "__main__":
    _main()
