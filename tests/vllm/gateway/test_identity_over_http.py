"""The caller's key travels to the scheduler, which judges by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai as openai_package
import pytest

from tests.support.fleet_processes import FleetProcesses
from tests.vllm.gateway.gateway_fleet import MODEL, SIMULATED, GatewayProcess
from tests.vllm.gateway.keys import KEYS, write_keys, write_token

pytestmark = [pytest.mark.vllm]


async def ask(gateway: GatewayProcess, token: str, **options: Any) -> Any:
    async with gateway.openai(token) as openai:
        return await openai.completions.with_raw_response.create(model=MODEL, prompt="x", max_tokens=3, **options)


async def test_the_scheduler_judges_the_caller_and_not_the_gateway(tmp_path: Path) -> None:
    keys = write_keys(tmp_path)
    flags = ["--policy", "fifo", "--access.keys-file", str(keys)]
    async with FleetProcesses(tmp_path, flags) as fleet:
        fleet.launch("one", [*SIMULATED, "--token-file", str(write_token(tmp_path, "executor"))])
        process = GatewayProcess(fleet, tmp_path, environment={"SAGE_TOKEN": KEYS["watcher"]}, token=KEYS["chat"])
        async with process.serving(MODEL) as gateway:
            made = await ask(gateway, KEYS["chat"])
            async with fleet.client(token=KEYS["chat"]) as client:
                explained = await client.explain(made.headers["x-request-id"], tenant="chat-team")
            assert explained.decisions

            with pytest.raises(openai_package.AuthenticationError) as unknown:
                await ask(gateway, "sk-unknown")
            assert unknown.value.status_code == 401
            async with gateway.http() as http:
                body = {"model": MODEL, "prompt": "x", "max_tokens": 3}
                answered = await http.post("/v1/completions", json=body)
                assert answered.status_code == 401, "the gateway's own key is not lent to callers"
                for token, status in ((KEYS["chat"], 200), ("sk-unknown", 401), (KEYS["watcher"], 200)):
                    headers = {"authorization": f"Bearer {token}"}
                    assert (await http.get("/v1/models", headers=headers)).status_code == status
                    answered = await http.post("/tokenize", json=body, headers=headers)
                    assert answered.status_code == status

            with pytest.raises(openai_package.PermissionDeniedError) as watcher:
                await ask(gateway, KEYS["watcher"])
            assert watcher.value.status_code == 403
            with pytest.raises(openai_package.APIStatusError) as other:
                await ask(gateway, KEYS["chat"], extra_body={"sage": {"tenant": "others"}})
            assert other.value.status_code == 403
