"""vLLM's own server with an engine of its own, to compare the gateway with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from executor_svc.engine.vllm.arguments import set_environment
from executor_svc.engine.vllm.settings import VllmSettings
from tests.support.engine_process import ONE_PROCESS
from tests.support.free_port import free_port
from tests.support.service_process import ServiceProcess, of_family

SERVES = "Application startup complete"
UP_WITHIN_S = 240.0


class OwnServer:
    """``python -m vllm.entrypoints.openai.api_server`` on a free port."""

    def __init__(self, name: str, logs: Path, flags: Sequence[str]) -> None:
        environment = {**ONE_PROCESS}
        set_environment(VllmSettings(cpu_cores="0"), environment)
        self._port = free_port()
        self._family = f"vllm-{self._port}"
        self.url = f"http://127.0.0.1:{self._port}"
        self._process = ServiceProcess(
            "vllm",
            "vllm.entrypoints.openai.api_server",
            ("--host", "127.0.0.1", "--port", str(self._port), "--served-model-name", name, *flags),
            logs / "vllm.log",
            family=self._family,
            environment=environment,
        )

    def http(self) -> Any:
        return httpx.AsyncClient(base_url=self.url, timeout=60.0)

    async def start(self) -> None:
        """Start it and wait until it serves."""
        self._process.start()
        await self._process.said(SERVES, within_s=UP_WITHIN_S)

    async def stop(self) -> None:
        """End it, if it was started; what does not end by itself is killed, and is a failure."""
        try:
            if self._process.running:
                self._process.terminate()
                await self._process.ended(within_s=30.0)
        finally:
            for each in of_family(self._family):
                each.kill()
            self._process.reap()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[OwnServer]:
        try:
            await self.start()
            yield self
        finally:
            await self.stop()
