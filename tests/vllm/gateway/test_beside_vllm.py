"""The gateway answers as vLLM's own server does with the same model: choices, echo, log probabilities, beams."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI

from tests.vllm.gateway.pair import NAME, Pair

pytestmark = [pytest.mark.vllm]

PROMPT = "Once upon a time there was a fleet of engines that told many stories to each other"
SEEDED: Any = {"model": NAME, "prompt": PROMPT, "max_tokens": 12, "seed": 5, "temperature": 1.0}
GREEDY: Any = {"model": NAME, "prompt": PROMPT, "max_tokens": 6, "temperature": 0}
CASES: dict[str, Any] = {
    "three choices": {**SEEDED, "n": 3},
    "three choices with log probabilities": {**SEEDED, "n": 3, "logprobs": 2},
    "echo": {**GREEDY, "echo": True},
    "echo with log probabilities": {**GREEDY, "echo": True, "logprobs": 2},
    "echo of the prompt alone": {**GREEDY, "echo": True, "logprobs": 1, "max_tokens": 0},
    "log probabilities of the prompt": {**GREEDY, "prompt_logprobs": 2},
    "the same of three choices": {**SEEDED, "n": 3, "prompt_logprobs": 1},
    "beams": {**GREEDY, "n": 2, "use_beam_search": True, "ignore_eos": True},
    "greedy choices": {**GREEDY, "n": 2},
    "more of the best": {**SEEDED, "n": 1, "best_of": 2},
}


async def test_answers_equal_those_of_vllms_own_server(pair: Pair) -> None:
    ours, theirs = pair.ours.url, pair.theirs.url
    differences = {}
    for name, body in CASES.items():
        got, wanted = [await answer(url, body) for url in (ours, theirs)]
        differences[name] = difference(got, wanted)
    assert differences == dict.fromkeys(CASES, "")
    got, wanted = [await streamed(url) for url in (ours, theirs)]
    assert got == wanted
    for url in (ours, theirs):
        await cached_tokens_are_told(url)


async def answer(url: str, body: Any) -> Any:
    """Return the choices and the usage of an answer, or the status of a refusal."""
    async with httpx.AsyncClient(timeout=60.0) as http:
        response = await http.post(f"{url}/v1/completions", json=body)
    if response.status_code != 200:
        return response.status_code
    found = response.json()
    usage = {name: found["usage"][name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
    return [found["choices"], usage]


def difference(got: Any, wanted: Any, at: str = "") -> str:
    """Say where two JSON values differ first; empty if they are equal but for the last digits of their numbers."""
    if isinstance(got, float) and isinstance(wanted, float):
        return "" if abs(got - wanted) < 1e-3 else f"{at}: {got}, wanted {wanted}"
    if isinstance(got, list) and isinstance(wanted, list) and len(got) == len(wanted):
        pairs = enumerate(zip(got, wanted, strict=True))
        return next((found for i, pair in pairs if (found := difference(*pair, f"{at}[{i}]"))), "")
    if isinstance(got, dict) and isinstance(wanted, dict) and got.keys() == wanted.keys():
        return next((found for name in wanted if (found := difference(got[name], wanted[name], f"{at}.{name}"))), "")
    return "" if got == wanted else f"{at}: {got}, wanted {wanted}"


async def streamed(url: str) -> tuple[list[str], list[str | None], int]:
    """Return texts, ends and tokens of three choices that are streamed."""
    texts: list[str] = ["", "", ""]
    ends: list[str | None] = [None, None, None]
    tokens = 0
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as openai:
        options = {**SEEDED, "n": 3, "stream_options": {"include_usage": True}}
        async for chunk in await openai.completions.create(**options, stream=True):
            for choice in chunk.choices:
                texts[choice.index] += choice.text
                ends[choice.index] = choice.finish_reason or ends[choice.index]
            tokens = chunk.usage.completion_tokens if chunk.usage is not None else tokens
    return texts, ends, tokens


async def cached_tokens_are_told(url: str) -> None:
    """The usage of an answer, streamed or not, has the prompt tokens that the cache held."""
    chat: Any = {
        "model": NAME,
        "messages": [{"role": "user", "content": PROMPT * 12}],
        "max_tokens": 4,
        "temperature": 0,
    }
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as openai:
        await openai.chat.completions.create(**chat)
        whole = await openai.chat.completions.create(**chat)
        options: Any = {"stream": True, "stream_options": {"include_usage": True}}
        chunks = [chunk async for chunk in await openai.chat.completions.create(**chat, **options)]
    streamed_usage = next(chunk.usage for chunk in reversed(chunks) if chunk.usage is not None)
    assert whole.usage.prompt_tokens_details.cached_tokens >= 16
    assert streamed_usage.prompt_tokens_details.cached_tokens == whole.usage.prompt_tokens_details.cached_tokens
