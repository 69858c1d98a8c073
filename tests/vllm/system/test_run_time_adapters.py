"""A LoRA adapter that is added to running engines: the tokens of an engine started with it, also after a kill -9."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sage_client import AdapterState, AsyncClient, AsyncStream, InvalidRequestError
from tests.support.engine_process import ONE_PROCESS
from tests.support.eventually import eventually
from tests.support.fleet_processes import FleetProcesses
from tests.support.free_port import free_port
from tests.support.token_check import assert_tokens
from tests.vllm.engine.adapter import make_adapter
from tests.vllm.system.engine_settings import UP_WITHIN_S, executor_flags

pytestmark = [pytest.mark.vllm]

PROMPT = "The adapter says:"
STARTED_WITH = "reference"  # the same weights, which executor "two" has from its start
TOKENS = 200


@pytest.fixture
async def fleet_of_adapters(tiny_model_float32: Path, tmp_path: Path) -> AsyncIterator[FleetProcesses]:
    weights = make_adapter(tiny_model_float32, tmp_path / "weights")
    fleet = FleetProcesses(tmp_path, ["--policy", "fifo"], listen=f"127.0.0.1:{free_port()}")
    async with fleet:
        for core, name in enumerate(("one", "two")):
            flags = [*executor_flags(str(tiny_model_float32), core), "--engine.vllm.adapter-slots", "1"]
            if name == "two":
                flags += ["--engine.vllm.adapters", json.dumps({STARTED_WITH: str(weights)})]
            fleet.launch(name, flags, environment=ONE_PROCESS)
        await fleet.ready("one", "two", within_s=UP_WITHIN_S)
        yield fleet


async def loaded_on(client: AsyncClient, name: str, *instances: str) -> dict[str, str]:
    """Wait until instances hold an adapter; return the fingerprint that each says."""

    async def there() -> dict[str, str] | None:
        found = next(each for each in await client.list_adapters() if each.name == name)
        weights = {each.instance_id: each.weights for each in found.instances if each.state is AdapterState.LOADED}
        return weights if weights.keys() >= set(instances) else None

    return await eventually(there, within_s=60.0, what=f"{name} on {instances}")


def stream(client: AsyncClient, adapter: str, on: str) -> AsyncStream:
    return client.generate(PROMPT, adapter=adapter, max_tokens=TOKENS, temperature=0, preferred_instance=on)


async def test_added_used_killed_and_removed(fleet_of_adapters: FleetProcesses, tmp_path: Path) -> None:
    async with fleet_of_adapters.client() as client:
        wanted = await stream(client, STARTED_WITH, "two").result()
        plain = await client.generate(PROMPT, max_tokens=TOKENS, temperature=0).result()
        assert plain.token_ids != wanted.token_ids

        await client.add_adapter("legal", str(tmp_path / "weights"))
        first = await client.generate(PROMPT, adapter="legal", max_tokens=TOKENS, temperature=0).result()
        assert_tokens(first.token_ids, wanted.token_ids, "while it was being loaded")
        weights = await loaded_on(client, "legal", "one", "two")
        assert weights["one"] == weights["two"] != ""

        running = stream(client, "legal", "one")
        while running.next_token < 20:
            await anext(running)
        fleet_of_adapters.executors["one"].kill()
        done = await running.result()
        assert (done.attempts, done.instance_id) == (2, "two")
        assert_tokens(done.token_ids, wanted.token_ids, "after kill -9")
        assert done.text == wanted.text

        last = stream(client, "legal", "two")
        await anext(last)
        await client.remove_adapter("legal")
        with pytest.raises(InvalidRequestError, match="adapter"):
            await stream(client, "legal", "two").result()
        assert_tokens((await last.result()).token_ids, wanted.token_ids, "while it was being removed")

        async def gone() -> bool:
            return not await client.list_adapters()

        await eventually(gone, what="the adapter to be removed")
        with pytest.raises(InvalidRequestError, match="is not one of the model's adapters: reference"):
            await stream(client, "legal", "two").result()
        again = await stream(client, STARTED_WITH, "two").result()
        assert_tokens(again.token_ids, wanted.token_ids, "the engine goes on")
