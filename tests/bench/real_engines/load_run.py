"""Sends a window of requests to a fleet, under one policy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from sage_client import AsyncClient
from sage_simulator.traced_request import TracedRequest
from tests.bench.real_engines.answer import Answer, answer

LATE_S = 0.1
"""A run whose requests were sent later than this, on average, tells of the machine rather than of the policy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadRun:
    """What one policy made of one window.  Runs with the same begin, load and turn had the same arrivals."""

    begun: str  # when the fleet was started: UTC, ISO 8601
    turn: int  # of this fleet, from 1
    load: float  # share of the measured capacity
    rate: float  # requests per second
    policy: str
    answers: Sequence[Answer]
    late_s: float = 0.0  # that requests were sent after their time, on average: something else had the cores

    @property
    def disturbed(self) -> bool:
        """Whether the client itself did not get to run in time."""
        return self.late_s > LATE_S


async def play(
    client: AsyncClient, requests: Sequence[TracedRequest], prompts: Sequence[list[int]]
) -> tuple[list[Answer], float]:
    """Send each request at its time, whatever became of those before, and wait for every answer.

    Returns the answers, and the seconds that requests were sent after their time, on average.
    """
    began, late_s = time.perf_counter(), 0.0

    async def send(request: TracedRequest, prompt: list[int]) -> Answer:
        nonlocal late_s
        due = began + request.arrival_s
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        late_s += time.perf_counter() - due
        return await answer(client, request, prompt)

    answers = await asyncio.gather(*(send(*each) for each in zip(requests, prompts, strict=True)))
    return answers, late_s / len(requests)


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
