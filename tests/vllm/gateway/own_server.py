"""vLLM's own server with an engine of its own, to compare the gateway with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from executor_svc.engine.vllm.arguments import set_environment
from executor_svc.engine.vllm.settings import VllmSettings
from tests.support.free_port import free_port
from tests.support.service_process import ServiceProcess

SERVES = "Application startup complete"
UP_WITHIN_S = 150.0


class OwnServer:
    """``python -m vllm.entrypoints.openai.api_server`` on a free port."""

    def __init__(self, name: str, logs: Path, flags: Sequence[str]) -> None:
        environment: dict[str, str] = {}
        set_environment(VllmSettings(cpu_cores="0"), environment)
        self._port = free_port()
        self._process = ServiceProcess(
            "vllm",
            "vllm.entrypoints.openai.api_server",
            ("--host", "127.0.0.1", "--port", str(self._port), "--served-model-name", name, *flags),
            logs / "vllm.log",
            family=f"vllm-{self._port}",
            environment=environment,
        )

    def http(self) -> Any:
        return httpx.AsyncClient(base_url=f"http://127.0.0.1:{self._port}", timeout=60.0)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[OwnServer]:
        try:
            self._process.start()
            await self._process.said(SERVES, within_s=UP_WITHIN_S)
            yield self
        finally:
            if self._process.running:
                self._process.terminate()
                await self._process.ended(within_s=30.0)
            self._process.reap()
