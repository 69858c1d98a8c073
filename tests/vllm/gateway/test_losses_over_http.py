"""What dies behind HTTP streams is not seen in them: text as if nothing had happened, one end."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.support.eventually import eventually
from tests.support.fleet_processes import FleetProcesses
from tests.vllm.gateway.gateway_fleet import MODEL, GatewayProcess

pytestmark = [pytest.mark.vllm]

STREAMS = 12
LENGTH = 150


def body(number: int, *, stream: bool) -> dict[str, Any]:
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": f"Tell me story {number}."}],
        "max_tokens": LENGTH,
        "seed": number,
        "ignore_eos": True,
        "stream": stream,
    }


class Stream:
    """One HTTP stream, event by event."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.events: list[str] = []
        self.arrived = asyncio.Event()

    async def read(self, http: Any) -> None:
        async with http.stream("POST", "/v1/chat/completions", json=body(self.number, stream=True)) as answered:
            assert answered.status_code == 200, await answered.aread()
            async for line in answered.aiter_lines():
                if line:
                    self.events.append(line.removeprefix("data: "))
                    self.arrived.set()

    @property
    def text(self) -> str:
        chunks = [json.loads(each) for each in self.events if each != "[DONE]"]
        return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)


async def undisturbed(http: Any) -> list[str]:
    answered = [await http.post("/v1/chat/completions", json=body(n, stream=False)) for n in range(STREAMS)]
    return [each.json()["choices"][0]["message"]["content"] for each in answered]


def assert_whole(streams: list[Stream], wanted: list[str]) -> None:
    for stream, text in zip(streams, wanted, strict=True):
        assert stream.text == text, stream.number
        assert stream.events.count("[DONE]") == 1
        assert stream.events[-1] == "[DONE]"


async def test_an_executor_is_killed_under_http_streams(fleet: FleetProcesses, gateway: GatewayProcess) -> None:
    async with gateway.http() as http, fleet.client() as client:
        wanted = await undisturbed(http)
        streams = [Stream(number) for number in range(STREAMS)]
        async with asyncio.TaskGroup() as group:
            for stream in streams:
                group.create_task(stream.read(http))
            await asyncio.gather(*(stream.arrived.wait() for stream in streams))
            fleet.executors["one"].kill()
        assert_whole(streams, wanted)
        ids = [json.loads(stream.events[0])["id"] for stream in streams]
        attempts = [len((await client.explain(each)).decisions) for each in ids]
        assert max(attempts) > 1, "no stream was struck"


async def test_a_scheduler_is_killed_under_http_streams(fleet: FleetProcesses, gateway: GatewayProcess) -> None:
    async with gateway.http() as http:
        wanted = await undisturbed(http)
        streams = [Stream(number) for number in range(STREAMS)]
        async with asyncio.TaskGroup() as group:
            for stream in streams:
                group.create_task(stream.read(http))
            await asyncio.gather(*(stream.arrived.wait() for stream in streams))
            fleet.scheduler.kill()
            await fleet.scheduler.ended()
            fleet.scheduler.start()
        assert_whole(streams, wanted)

        async def healthy() -> bool:
            return bool((await http.get("/health")).status_code == 200)

        await eventually(healthy, within_s=30.0, what="the gateway to be healthy again")
