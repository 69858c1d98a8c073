"""/v1/embeddings beside a model that generates, with OpenAI's client."""

from __future__ import annotations

from typing import Any

import openai as openai_package
import pytest

from sage_client import AsyncClient
from tests.vllm.gateway.gateway_fleet import MODEL, VECTORS

pytestmark = [pytest.mark.vllm]

TEXTS = ["a cat", "a dog"]


@pytest.mark.parametrize("options", [{}, {"encoding_format": "float"}])  # by itself the client asks for base64
async def test_vectors_are_the_fleets(openai: Any, client: AsyncClient, options: Any) -> None:
    wanted = await client.embed(TEXTS, model=VECTORS)
    made = await openai.embeddings.create(model=VECTORS, input=TEXTS, **options)
    assert [each.embedding for each in made.data] == [list(each) for each in wanted.vectors]
    assert made.usage.prompt_tokens == wanted.usage.prompt_tokens


async def test_token_ids_are_an_input(openai: Any, client: AsyncClient) -> None:
    wanted = await client.embed([[300, 301], [302]], model=VECTORS)
    made = await openai.embeddings.create(model=VECTORS, input=[[300, 301], [302]])
    assert [each.embedding for each in made.data] == [list(each) for each in wanted.vectors]


async def test_each_input_is_explained(openai: Any, client: AsyncClient) -> None:
    sage = {"request_id": "vectors-1", "priority": "background"}
    raw = await openai.embeddings.with_raw_response.create(model=VECTORS, input=TEXTS, extra_body={"sage": sage})
    assert raw.headers["x-request-id"] == "vectors-1"
    assert (await client.explain("vectors-1/1")).decisions


async def test_a_model_embeds_or_generates(openai: Any) -> None:
    for asked in (
        openai.embeddings.create(model=MODEL, input="a"),
        openai.completions.create(model=VECTORS, prompt="a"),
    ):
        with pytest.raises(openai_package.BadRequestError) as caught:
            await asked
        assert caught.value.body["param"] == "model"


async def test_the_schedulers_refusal_names_the_field(openai: Any) -> None:
    with pytest.raises(openai_package.BadRequestError) as caught:
        await openai.embeddings.create(model=VECTORS, input=["a", "b " * 100_000])
    assert caught.value.body["param"] == "input"
    assert "inputs[1]" in caught.value.body["message"]
