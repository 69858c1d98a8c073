"""Sends a window of requests to a fleet, under one policy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from sage_client import AsyncClient
from sage_simulator.traced_request import TracedRequest
from tests.bench.real_engines.answer import Answer, answer


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadRun:
    """What one policy made of one window.  Runs with the same begin, load and turn had the same arrivals."""

    begun: str  # when the fleet was started: UTC, ISO 8601
    turn: int  # of this fleet, from 1
    load: float  # share of the measured capacity
    rate: float  # requests per second
    policy: str
    answers: Sequence[Answer]


async def play(client: AsyncClient, requests: Sequence[TracedRequest], prompts: Sequence[list[int]]) -> list[Answer]:
    """Send each request at its time, whatever became of those before, and wait for every answer."""
    began = time.perf_counter()

    async def send(request: TracedRequest, prompt: list[int]) -> Answer:
        await asyncio.sleep(max(0.0, began + request.arrival_s - time.perf_counter()))
        return await answer(client, request, prompt)

    return await asyncio.gather(*(send(*each) for each in zip(requests, prompts, strict=True)))


async def saturation(client: AsyncClient, requests: Sequence[TracedRequest], prompts: Sequence[list[int]]) -> float:
    """Return the requests per second that are answered while all of them are there from the start.

    The first and the last quarter do not count: there the slots fill and run empty.  Raises RuntimeError where a
    request failed.
    """
    ends: list[float] = []

    async def send(request: TracedRequest, prompt: list[int]) -> None:
        got = await answer(client, request, prompt)
        if got.output_tokens == request.output_tokens:
            ends.append(time.perf_counter())

    await asyncio.gather(*(send(*each) for each in zip(requests, prompts, strict=True)))
    if len(ends) < len(requests):
        raise RuntimeError(f"{len(requests) - len(ends)} of {len(requests)} requests failed")
    first, last = len(ends) // 4, 3 * len(ends) // 4
    return (last - first) / (ends[last] - ends[first])
