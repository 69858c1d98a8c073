"""A fleet with an HTTP gateway before it, all as processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from tests.support.eventually import eventually
from tests.support.fleet_processes import FleetProcesses
from tests.support.service_process import ServiceProcess

MODEL = "sim"
VECTORS = "vectors"
EMBEDS = ("--engine.kind", "simulated", "--model", VECTORS, "--role", "embedding")
ADAPTER = "poet"
SIMULATED = (
    *("--engine.kind", "simulated", "--model", MODEL, "--engine.simulated.adapters", f'["{ADAPTER}"]'),
    *("--engine.simulated.adapter-slots", "1"),
)
UP_WITHIN_S = 240.0
LISTENING = r"listening on 127\.0\.0\.1:(\d+)"


class GatewayProcess:
    """``python -m sage_gateway`` on a free port."""

    def __init__(
        self,
        fleet: FleetProcesses,
        logs: Path,
        flags: Sequence[str] = (),
        *,
        environment: Mapping[str, str] | None = None,
        token: str = "any",
    ) -> None:
        """``token``: with which the test asks for the models that are served."""
        self._token = token
        self.process = ServiceProcess(
            "gateway",
            "sage_gateway",
            ("--address", fleet.address, "--port", "0", "--grace-s", "2", *flags),
            logs / "gateway.log",
            family=fleet.family,
            environment=environment,
        )
        self.url = ""

    async def start(self, *models: str) -> None:
        """Wait until it serves all of ``models``."""
        self.process.start()
        port = (await self.process.said(LISTENING, within_s=UP_WITHIN_S)).group(1)
        self.url = f"http://127.0.0.1:{port}"
        await self.serves(*models)

    async def serves(self, *models: str) -> None:
        async def listed() -> bool:
            async with self.http(headers={"authorization": f"Bearer {self._token}"}) as http:
                found = (await http.get("/v1/models")).json()
            return {card["id"] for card in found["data"]} >= set(models)

        await eventually(listed, within_s=UP_WITHIN_S, what=f"the gateway to serve {models}", every_s=0.2)

    def http(self, **options: Any) -> Any:
        return httpx.AsyncClient(base_url=self.url, timeout=60.0, **options)

    def openai(self, token: str = "any", **options: Any) -> Any:
        return AsyncOpenAI(base_url=f"{self.url}/v1", api_key=token, max_retries=0, **options)

    def anthropic(self, token: str = "any") -> Any:
        return AsyncAnthropic(base_url=self.url, api_key=token, max_retries=0)

    @asynccontextmanager
    async def serving(self, *models: str) -> AsyncIterator[GatewayProcess]:
        try:
            await self.start(*models)
            yield self
        finally:
            await self.stop()

    async def stop(self) -> None:
        try:
            if self.process.running:
                self.process.terminate()
                assert await self.process.ended(within_s=30.0) == 0, self.process.tail()
        finally:
            self.process.reap()
