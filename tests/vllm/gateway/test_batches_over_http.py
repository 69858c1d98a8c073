"""Batches by the unchanged package of OpenAI's, before a real scheduler; what dies loses and repeats no line."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai as openai_package
import pytest

from tests.support.eventually import eventually
from tests.support.fleet_processes import FleetProcesses
from tests.vllm.gateway.gateway_fleet import MODEL, VECTORS, GatewayProcess

pytestmark = [pytest.mark.vllm]

LINES = 60
LENGTH = 120
ENDED = ("completed", "failed", "expired", "cancelled")


def chat(number: int) -> dict[str, Any]:
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": f"Tell me story {number}."}],
        "max_tokens": LENGTH,
        "seed": number,
        "ignore_eos": True,
    }


def line(custom_id: str, url: str, body: dict[str, Any]) -> bytes:
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body}).encode() + b"\n"


def stories(count: int = LINES) -> bytes:
    return b"".join(line(f"story-{number}", "/v1/chat/completions", chat(number)) for number in range(count))


def by_custom_id(content: bytes) -> dict[str, Any]:
    """The lines of an output; each id comes once."""
    found = [json.loads(each) for each in content.splitlines()]
    ids = [each["custom_id"] for each in found]
    assert len(set(ids)) == len(ids), "a line has two results"
    return {each["custom_id"]: each for each in found}


async def ended(openai: Any, batch_id: str) -> Any:
    async def over() -> Any:
        found = await openai.batches.retrieve(batch_id)
        return found if found.status in ENDED else None

    return await eventually(over, within_s=90.0, what="the batch to end", every_s=0.2)


async def text_of(openai: Any, number: int) -> str:
    given = {key: value for key, value in chat(number).items() if key != "ignore_eos"}
    made = await openai.chat.completions.create(**given, extra_body={"ignore_eos": True})
    return str(made.choices[0].message.content)


async def test_a_batch_of_openais_package(openai: Any) -> None:
    await every_kind_of_line_is_answered(openai)
    await a_batch_is_cancelled(openai)
    await what_is_wrong_is_said(openai)


async def every_kind_of_line_is_answered(openai: Any) -> None:
    prompt = {"model": MODEL, "prompt": "Once", "max_tokens": 10, "temperature": 0}
    content = (
        stories(3)
        + line("text", "/v1/completions", prompt)
        + line("vector", "/v1/embeddings", {"model": VECTORS, "input": ["a", "b"]})
        + line("wrong", "/v1/completions", {**prompt, "top_p": 7})
    )
    uploaded = await openai.files.create(file=("night.jsonl", content), purpose="batch")
    assert (uploaded.filename, uploaded.bytes, uploaded.purpose) == ("night.jsonl", len(content), "batch")
    assert (await openai.files.content(uploaded.id)).content == content
    made = await openai.batches.create(
        input_file_id=uploaded.id, endpoint="", completion_window="24h", metadata={"for": "me"}
    )
    batch = await ended(openai, made.id)
    assert (batch.status, batch.metadata, batch.completion_window) == ("completed", {"for": "me"}, "24h")
    counts = batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (6, 5, 1)
    output = by_custom_id((await openai.files.content(batch.output_file_id)).content)
    for number in range(3):
        body = output[f"story-{number}"]["response"]["body"]
        assert body["choices"][0]["message"]["content"] == await text_of(openai, number)
    direct = await openai.completions.create(**prompt)
    assert output["text"]["response"]["body"]["choices"][0]["text"] == direct.choices[0].text
    vectors = await openai.embeddings.create(model=VECTORS, input=["a", "b"], encoding_format="float")
    found = [each["embedding"] for each in output["vector"]["response"]["body"]["data"]]
    assert found == [pytest.approx(each.embedding) for each in vectors.data]
    errors = by_custom_id((await openai.files.content(batch.error_file_id)).content)
    assert errors["wrong"]["response"]["body"]["error"]["param"] == "top_p"
    assert made.id in [each.id async for each in openai.batches.list(limit=1)]
    assert {uploaded.id, batch.output_file_id} <= {each.id async for each in openai.files.list(limit=1)}
    assert (await openai.files.delete(uploaded.id)).deleted


async def a_batch_is_cancelled(openai: Any) -> None:
    uploaded = await openai.files.create(file=("long.jsonl", stories(2_000)), purpose="batch")
    made = await openai.batches.create(
        input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    with pytest.raises(openai_package.ConflictError):
        await openai.files.delete(uploaded.id)
    assert (await openai.batches.cancel(made.id)).status in ("cancelling", "cancelled")
    assert (await ended(openai, made.id)).status == "cancelled"


async def what_is_wrong_is_said(openai: Any) -> None:
    with pytest.raises(openai_package.NotFoundError):
        await openai.batches.retrieve("nobody")
    uploaded = await openai.files.create(file=b"no json\n", purpose="batch")
    made = await openai.batches.create(input_file_id=uploaded.id, endpoint="", completion_window="1h")
    batch = await ended(openai, made.id)
    assert batch.status == "failed"
    assert batch.errors.data[0].line == 1


async def test_a_gateway_and_a_scheduler_are_killed_under_a_batch(
    fleet: FleetProcesses, gateway: GatewayProcess
) -> None:
    async with gateway.openai() as openai:
        wanted = await asyncio.gather(*(text_of(openai, number) for number in range(LINES)))
        uploaded = await openai.files.create(file=("night.jsonl", stories()), purpose="batch")
        made = await openai.batches.create(
            input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h"
        )

        async def some() -> bool:
            return bool((await openai.batches.retrieve(made.id)).request_counts.completed > 3)

        await eventually(some, within_s=60.0, what="lines to end")
    gateway.process.kill()
    await gateway.process.ended()
    fleet.scheduler.kill()
    await fleet.scheduler.ended()
    fleet.scheduler.start()
    await gateway.start(MODEL)
    async with gateway.openai() as openai:
        batch = await ended(openai, made.id)
        assert batch.status == "completed"
        assert batch.request_counts.completed == LINES
        output = by_custom_id((await openai.files.content(batch.output_file_id)).content)
    texts = {
        custom_id: each["response"]["body"]["choices"][0]["message"]["content"] for custom_id, each in output.items()
    }
    assert texts == {f"story-{number}": text for number, text in enumerate(wanted)}
