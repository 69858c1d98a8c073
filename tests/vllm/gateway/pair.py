"""One model behind the gateway and behind vLLM's own server, each with an engine of its own."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from tests.support.engine_process import ONE_PROCESS
from tests.support.fleet_processes import FleetProcesses
from tests.vllm.gateway.gateway_fleet import GatewayProcess
from tests.vllm.gateway.own_server import OwnServer
from tests.vllm.gateway.thinking_model import make_thinking_model

NAME = "tiny"
UP_WITHIN_S = 240.0
# A model that says noise would fill JSON with blanks for ever.
STRUCTURED = {"backend": "xgrammar", "disable_any_whitespace": True}
ENGINE = (
    *("--engine.model.served-name", NAME, "--engine.vllm.dtype", "float32", "--engine.vllm.enforce-eager"),
    *("--engine.vllm.max-running", "8", "--engine.vllm.max-model-len", "1024"),
    *("--engine.vllm.kv-cache-bytes", str(64 << 20), "--engine.vllm.cpu-cores", "0"),
    *("--engine.vllm.request-options", '["skip_reading_prefix_cache", "mine"]'),
    *("--engine.vllm.engine-args", json.dumps({"structured_outputs_config": STRUCTURED, "reasoning_parser": "qwen3"})),
)
OWN_ENGINE = (
    *("--dtype", "float32", "--enforce-eager", "--max-num-seqs", "8", "--max-model-len", "1024"),
    *("--kv-cache-memory-bytes", str(64 << 20), "--structured-outputs-config", json.dumps(STRUCTURED)),
    *("--max-logprobs", "4096", "--distributed-executor-backend", "uni"),
)
BOTH = (
    *("--enable-auto-tool-choice", "--tool-call-parser=hermes", "--reasoning-parser=qwen3"),
    "--enable-prompt-tokens-details",
)


class Pair:
    """``ours`` is the gateway before ``fleet``, ``theirs`` vLLM's own server."""

    def __init__(self, folder: Path) -> None:
        model = folder / "model"
        self.end_of_reasoning = make_thinking_model(model)  # a token's id
        self.fleet = FleetProcesses(folder, ["--policy", "fifo"])
        self.theirs = OwnServer(NAME, folder, ("--model", str(model), *OWN_ENGINE, *BOTH))
        self._engine = ("--model", str(model), *ENGINE)
        self._folder = folder
        self._ours: GatewayProcess | None = None

    @property
    def ours(self) -> GatewayProcess:
        assert self._ours is not None, "it was started"
        return self._ours

    async def start(self) -> None:
        """Start both at once, and wait until both serve."""
        await self.fleet.start()
        self.fleet.launch("one", self._engine, environment=ONE_PROCESS)
        await asyncio.gather(self._start_gateway(), self.theirs.start())

    async def _start_gateway(self) -> None:
        await self.fleet.ready("one", within_s=UP_WITHIN_S)
        self._ours = GatewayProcess(self.fleet, self._folder, [f"--vllm-arg={each}" for each in BOTH])
        await self.ours.start(NAME)

    async def stop(self) -> None:
        """End what was started."""
        try:
            await self.theirs.stop()
            if self._ours is not None:
                await self._ours.stop()
        finally:
            await self.fleet.leave()
