"""What it takes to put an idle engine to sleep and to wake it, and whether it answers as before."""

from __future__ import annotations

import asyncio
import time

from sage_client import AsyncClient, InstanceState
from tests.bench.engines import Engine
from tests.bench.report import Row
from tests.bench.rounds import spread
from tests.bench.sleep.sharing_fleet import sharing_fleet, tokens_of, until

OUTPUT = 64
REPORT_S = 2.0  # until a heartbeat has what the memory holds now
GIB = 1 << 30


async def measure(engine: Engine, case: str, *, rounds: int) -> list[Row]:
    """Order sleeps and wakes of one engine while the other one sleeps."""
    async with sharing_fleet(engine) as (client, start_s):
        await client.sleep_instance("b")
        await until(client, "b", InstanceState.SLEEPING, "asleep")
        await client.wake_instance("a")
        await until(client, "a", InstanceState.READY)
        before = await tokens_of(client, "a", OUTPUT)
        sleeps, wakes, asleep_gib, awake_gib, equal = [], [], [], [], []
        for _ in range(rounds):
            sleeps.append(await _sleep_s(client))
            asleep_gib.append(await _memory_gib(client))
            wakes.append(await _wake_s(client))
            equal.append(await tokens_of(client, "a", OUTPUT) == before)
            awake_gib.append(await _memory_gib(client))
    same = f"{sum(equal)} of {len(equal)} answers after a wake are those before, {len(set(before))} distinct tokens"
    return [
        Row(benchmark="start", case=case, unit="s", **spread([start_s])),
        Row(benchmark="falls asleep", case=case, unit="s", **spread(sleeps)),
        Row(benchmark="wakes up", case=case, unit="s", note=same, **spread(wakes)),
        Row(benchmark="memory used while both sleep", case=case, unit="GiB", **spread(asleep_gib)),
        Row(benchmark="memory used while one is awake", case=case, unit="GiB", **spread(awake_gib)),
    ]


async def _sleep_s(client: AsyncClient) -> float:
    began = time.perf_counter()
    await client.sleep_instance("a")
    await until(client, "a", InstanceState.SLEEPING, "asleep")
    return time.perf_counter() - began


async def _wake_s(client: AsyncClient) -> float:
    began = time.perf_counter()
    await client.wake_instance("a")
    await until(client, "a", InstanceState.READY)
    return time.perf_counter() - began


async def _memory_gib(client: AsyncClient) -> float:
    await asyncio.sleep(REPORT_S)
    return (await client.get_instance("a")).gpu_memory_used_bytes / GIB
