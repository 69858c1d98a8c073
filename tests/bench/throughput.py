"""Tokens per second through the control plane, over those of the same engine called in a process of its own.

Both engines are up throughout and take turns, and the one that waits is asleep before the other begins.  Through the
control plane, scheduler, executor and client are processes of their own, the client being this one, and it decodes
every event.  Where the engine's computing is bound to a core, all processes but the engine's own keep off that core,
in either arm.
"""

from __future__ import annotations

import asyncio
import os
import statistics
from contextlib import nullcontext

from sage_client import AsyncClient
from tests.bench.affinity import kept_off
from tests.bench.control_plane import control_plane
from tests.bench.direct_engine import direct_engine
from tests.bench.engines import Engine
from tests.bench.report import Row
from tests.bench.rounds import spread
from tests.bench.streams import run_with_sdk
from tests.bench.workload import Workload

STREAMS = 32
PROMPT_TOKENS = 32


async def measure(engine: Engine, case: str, *, rounds: int, max_tokens: int, target: str = "") -> list[Row]:
    through: list[float] = []
    alone: list[float] = []
    messages: list[float] = []  # per token
    async with (
        control_plane(engine) as plane,
        direct_engine(engine) as direct,
        AsyncClient(plane.address) as client,
    ):
        pids = [os.getpid(), *plane.pids, direct.pid]
        with nullcontext() if engine.bound_to is None else kept_off(engine.bound_to, pids):
            for number in range(rounds + 1):  # the first warms up
                workload = Workload(streams=STREAMS, prompt_tokens=PROMPT_TOKENS, max_tokens=max_tokens, seed=number)
                await asyncio.sleep(engine.settle_s)
                wall_s, _ = await direct.run(workload)
                alone.append(workload.output_tokens / wall_s)
                await asyncio.sleep(engine.settle_s)
                run = await run_with_sdk(client, workload)
                through.append(run.tokens / run.wall_s)
                messages.append(run.messages / run.tokens)
    ratios = [one / other for one, other in zip(through[1:], alone[1:], strict=True)]
    rates = (
        f"{statistics.median(through[1:]):,.0f} of {statistics.median(alone[1:]):,.0f} tokens/s, "
        f"{statistics.median(messages[1:]):.2f} messages per token"
    )
    return [
        Row(
            benchmark=f"throughput, {STREAMS} streams",
            case=case,
            unit="of in-process",
            target=target,
            note=rates,
            **spread(ratios),
        )
    ]
