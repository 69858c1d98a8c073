"""Two models that share a device, both asked at the same time."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field

from sage_client import AsyncClient, Scheduled, Tokens
from tests.bench.child import ChildFailed
from tests.bench.engines import Engine
from tests.bench.report import Row
from tests.bench.rounds import spread
from tests.bench.sleep.sharing_fleet import NAMES, REQUEST_TIMEOUT_S, sharing_fleet, tokens_of
from tests.bench.workload import VOCABULARY

PROMPT = 128
OUTPUT = 64
REQUESTS_PER_S = 1.0  # of each model


@dataclass(slots=True)
class Seen:
    """What the clients of both models saw."""

    first_token_s: list[float] = field(default_factory=list)
    moved: int = 0  # requests with more than one placement
    served: list[str] = field(default_factory=list)  # instances in the order of placements


async def measure(engine: Engine, case: str, *, run_s: float) -> list[Row]:
    """Send requests of both models for so many seconds, and wait for all of them."""
    seen = Seen()
    async with sharing_fleet(engine) as (client, _):
        alone = await _first_token_alone_s(client)
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for name in NAMES:
                group.create_task(_arrivals(client, name, run_s, seen))
        took_s = time.perf_counter() - began
    exchanges = sum(before != after for before, after in zip(seen.served, seen.served[1:], strict=False))
    count = len(seen.first_token_s)
    waits = sorted(seen.first_token_s)
    note = f"{count} requests of {OUTPUT} tokens in {took_s:.0f} s, all answered; {seen.moved} went on in a later turn"
    return [
        Row(benchmark="first token, awake and alone", case=case, unit="s", **spread(alone)),
        Row(benchmark="first token, in turns", case=case, unit="s", note=note, **spread(waits)),
        Row(benchmark="first token, in turns, p95", case=case, unit="s", **spread([waits[int(0.95 * (count - 1))]])),
        Row(benchmark="exchanges", case=case, unit="per minute", **spread([60.0 * exchanges / took_s])),
    ]


async def _first_token_alone_s(client: AsyncClient) -> list[float]:
    await tokens_of(client, NAMES[0], 8)
    seen = Seen()
    for seed in range(5):
        await _request(client, NAMES[0], random.Random(seed), seen)
    return seen.first_token_s


async def _arrivals(client: AsyncClient, model: str, run_s: float, seen: Seen) -> None:
    """Send requests at exponential intervals."""
    dice = random.Random(model)
    end = time.perf_counter() + run_s
    async with asyncio.TaskGroup() as group:
        while time.perf_counter() < end:
            group.create_task(_request(client, model, random.Random(dice.random()), seen))
            await asyncio.sleep(dice.expovariate(REQUESTS_PER_S))


async def _request(client: AsyncClient, model: str, dice: random.Random, seen: Seen) -> None:
    began, first_s, tokens, placements = time.perf_counter(), None, 0, 0
    async for event in client.generate(
        token_ids=dice.choices(VOCABULARY, k=PROMPT),
        model=model,
        max_tokens=OUTPUT,
        ignore_eos=True,
        temperature=0.0,
        timeout=REQUEST_TIMEOUT_S,
    ):
        if isinstance(event, Scheduled):
            placements += 1
            seen.served.append(model)
        elif isinstance(event, Tokens):
            first_s = first_s if first_s is not None else time.perf_counter() - began
            tokens += len(event.token_ids)
    if first_s is None or tokens != OUTPUT:
        raise ChildFailed(f"{tokens} tokens of {model} arrived of {OUTPUT}")
    seen.first_token_s.append(first_s)
    seen.moved += placements > 1
