"""/v1/embeddings beside a model that generates, with OpenAI's client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai as openai_package
import pytest

from tests.support.fleet_processes import FleetProcesses
from tests.vllm.gateway.gateway_fleet import MODEL, SIMULATED, GatewayProcess

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(200)]

VECTORS = "vectors"
EMBEDS = ("--engine.kind", "simulated", "--model", VECTORS, "--role", "embedding")


async def test_two_models_behind_one_address(tmp_path: Path) -> None:
    async with FleetProcesses(tmp_path, ["--policy", "fifo"]) as fleet:
        fleet.launch("one", SIMULATED)
        fleet.launch("two", EMBEDS)
        await fleet.ready("one", "two")
        gateway = GatewayProcess(fleet, tmp_path)
        await gateway.start(MODEL, VECTORS)
        try:
            async with gateway.openai() as openai, fleet.client() as client:
                texts = ["a cat", "a dog"]
                wanted = await client.embed(texts, model=VECTORS)
                for encoding in ("float", "base64"):
                    made = await openai.embeddings.create(model=VECTORS, input=texts, encoding_format=encoding)
                    assert made.usage.prompt_tokens == wanted.usage.prompt_tokens
                    assert vectors(made) == [list(each) for each in wanted] or encoding == "base64"
                made = await openai.embeddings.create(model=VECTORS, input=texts)  # the client's own choice: base64
                assert vectors(made) == [pytest.approx(list(each)) for each in wanted]
                assert await refused(openai.embeddings.create(model=VECTORS, input=["a", ""])) == "input"
                assert await refused(openai.embeddings.create(model=MODEL, input="a")) == "model"
                assert await refused(openai.completions.create(model=VECTORS, prompt="a")) == "model"
                made = await openai.completions.create(model=MODEL, prompt="a", max_tokens=3)
                assert made.usage.completion_tokens <= 3
        finally:
            await gateway.stop()


def vectors(made: Any) -> list[Any]:
    return [each.embedding for each in made.data]


async def refused(asked: Any) -> str:
    """Return the field at fault."""
    with pytest.raises(openai_package.BadRequestError) as caught:
        await asked
    return str(caught.value.body["param"])
