"""The gateway answers as vLLM's own server does with the same model: choices, echo, log probabilities, beams."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI

from executor_svc.engine.tiny_model import make_tiny_model
from tests.support.eventually import eventually
from tests.support.fleet_processes import FleetProcesses
from tests.support.free_port import free_port
from tests.support.service_process import ServiceProcess
from tests.vllm.gateway.gateway_fleet import GatewayProcess

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(400)]

TINY = "tiny"
UP_WITHIN_S = 150.0
KV_CACHE_BYTES = 64 << 20
ENGINE = (
    *("--engine.model.served-name", TINY, "--engine.vllm.dtype", "float32", "--engine.vllm.enforce-eager"),
    *("--engine.vllm.max-running", "8", "--engine.vllm.max-model-len", "1024"),
    *("--engine.vllm.kv-cache-bytes", str(KV_CACHE_BYTES), "--engine.vllm.cpu-cores", "0"),
)
OWN = (
    *("--served-model-name", TINY, "--dtype", "float32", "--enforce-eager", "--max-num-seqs", "8"),
    *("--max-model-len", "1024", "--kv-cache-memory-bytes", str(KV_CACHE_BYTES), "--host", "127.0.0.1"),
)
DETAILS = "--enable-prompt-tokens-details"
CORE = {"VLLM_CPU_OMP_THREADS_BIND": "1", "VLLM_NO_USAGE_STATS": "1", "TORCHDYNAMO_DISABLE": "1"}
PROMPT = "Once upon a time there was a fleet of engines that told many stories to each other"
SEEDED: Any = {"model": TINY, "prompt": PROMPT, "max_tokens": 12, "seed": 5, "temperature": 1.0}
GREEDY: Any = {"model": TINY, "prompt": PROMPT, "max_tokens": 6, "temperature": 0}
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


@asynccontextmanager
async def both(path: Path, tmp_path: Path) -> AsyncIterator[tuple[str, str]]:
    """Return the addresses of the gateway and of vLLM's own server."""
    port = free_port()
    async with FleetProcesses(tmp_path, ["--policy", "fifo"]) as fleet:
        own = ServiceProcess(
            "vllm",
            "vllm.entrypoints.openai.api_server",
            ("--model", str(path), "--port", str(port), *OWN, DETAILS),
            tmp_path / "vllm.log",
            family=fleet.family,
            environment=CORE,
        )
        own.start()
        try:
            fleet.launch("one", ["--model", str(path), *ENGINE])
            await fleet.ready("one", within_s=UP_WITHIN_S)
            async with GatewayProcess(fleet, tmp_path, (f"--vllm-arg={DETAILS}",)).serving(TINY) as gateway:
                url = f"http://127.0.0.1:{port}"
                await eventually(lambda: _healthy(url), within_s=UP_WITHIN_S, what="vLLM's server", every_s=0.5)
                yield gateway.url, url
        finally:
            own.terminate()
            try:
                await own.ended(within_s=30.0)
            finally:
                own.reap()


async def _healthy(url: str) -> bool:
    try:
        async with httpx.AsyncClient() as http:
            return bool((await http.get(f"{url}/health")).status_code == 200)
    except httpx.HTTPError:
        return False


async def test_answers_equal_those_of_vllms_own_server(tmp_path: Path) -> None:
    path = tmp_path / "model"
    make_tiny_model(path, "float32")
    async with both(path, tmp_path) as (ours, theirs):
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
        "model": TINY,
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
