"""What a request costs the scheduler: CPU milliseconds per request of four tokens, many one after the other.

Over Generate every request is a call, and every event a message: gRPC's own share of it is a call of the bare server
with as many messages.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import grpc

from tests.bench.bare_server import BareServer, bare_server
from tests.bench.light_plane import LightPlane, light_plane
from tests.bench.report import Row
from tests.bench.rounds import spread
from tests.bench.short_requests import over_generate, over_session
from tests.bench.workload import Workload

STREAMS = 32
TOKENS = 4
PROMPT_TOKENS = 32
STEP_S = 0.004
MESSAGES = TOKENS + 3  # Accepted, Scheduled, a message per token, Finished
SETTLE_S = 0.7
TARGET = "<= 0.8"
Load = Callable[[grpc.aio.Channel, Workload, int], Awaitable[float]]


async def measure(*, rounds: int, requests: int) -> list[Row]:
    rows = []
    async with light_plane(executors=2, step_s=STEP_S) as plane, grpc.aio.insecure_channel(plane.address) as channel:
        await asyncio.sleep(SETTLE_S)
        for name, load in (("Generate", over_generate), ("one session", over_session)):
            costs = [await _round(load, plane, channel, number, requests) for number in range(rounds + 1)]
            rows.append(_row(name, costs[1:], TARGET))
    async with bare_server() as bare:
        floor = [await _bare_round(bare, requests) for _ in range(rounds + 1)]
    rows.append(_row(f"bare grpc.aio server, {MESSAGES} messages a call", [(cost, "") for cost in floor[1:]], ""))
    return rows


async def _round(
    load: Load, plane: LightPlane, channel: grpc.aio.Channel, number: int, requests: int
) -> tuple[float, str]:
    """Milliseconds of the scheduler per request, and what else is worth knowing."""
    workload = Workload(streams=STREAMS, prompt_tokens=PROMPT_TOKENS, max_tokens=TOKENS, seed=number)
    scheduler, sources, client = plane.scheduler.cpu_s(), plane.sources.cpu_s(), time.process_time()
    wall_s = await load(channel, workload, requests)
    scheduler, sources, client = (
        (now - before) / requests * 1e3
        for now, before in (
            (plane.scheduler.cpu_s(), scheduler),
            (plane.sources.cpu_s(), sources),
            (time.process_time(), client),
        )
    )
    return scheduler, f"{requests / wall_s:,.0f} requests/s; executors {sources:.2f} ms, client {client:.2f} ms"


async def _bare_round(bare: BareServer, requests: int) -> float:
    before, left = bare.cpu_s(), iter(range(requests))

    async def stream() -> None:
        for _ in left:
            await bare.read(MESSAGES, STEP_S)

    await asyncio.gather(*(stream() for _ in range(STREAMS)))
    return (bare.cpu_s() - before) / requests * 1e3


def _row(case: str, costs: list[tuple[float, str]], target: str) -> Row:
    return Row(
        benchmark=f"a request of {TOKENS} tokens",
        case=case,
        unit="CPU ms / request",
        target=target,
        note=costs[-1][1],
        **spread([cost for cost, _ in costs]),
    )
