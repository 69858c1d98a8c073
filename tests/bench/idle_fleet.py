"""What a fleet costs the scheduler, by the number of instances: CPU time and memory idle, and decisions under load."""

from __future__ import annotations

import asyncio
import time
from statistics import median

import grpc
import psutil

from sage_client import AsyncClient
from tests.bench.light_plane import LightPlane, light_plane
from tests.bench.report import Row
from tests.bench.rounds import spread
from tests.bench.short_requests import over_session
from tests.bench.workload import Workload

SIZES = (10, 100, 1_000)
SETTLE_S = 2.0
STEP_S = 0.01
#: Requests at once, enough for the scheduler to be what limits them, and the tokens of each.
STREAMS = 256
TOKENS = 4


async def measure(*, rounds: int, seconds: float, requests: int) -> list[Row]:
    rows: list[Row] = []
    for instances in SIZES:
        began = time.perf_counter()
        async with light_plane(executors=instances, step_s=STEP_S) as plane:
            up_s, up_cpu_s = time.perf_counter() - began, plane.scheduler.cpu_s()
            await asyncio.sleep(SETTLE_S)
            shares = [await _share(plane, seconds) for _ in range(rounds)]
            view_ms = [await _view_ms(plane) for _ in range(rounds + 1)][1:]
            memory = psutil.Process(plane.scheduler.pid).memory_info().rss / 2**20
            loaded = [await _load(plane, requests, number) for number in range(rounds + 1)][1:]
            oldest_s = await _oldest_heartbeat_s(plane)
        note = f"{memory:,.0f} MiB; up after {up_s:.1f} s and {up_cpu_s:.1f} CPU s, Python's start included"
        rows.append(_row(instances, "scheduler, idle", "% of a core", shares, note))
        rows.append(_row(instances, "scheduler, ListInstances", "CPU ms", view_ms, ""))
        cost_ms = median(cost for _, cost in loaded)
        note = f"{cost_ms:.2f} CPU ms each; the oldest heartbeat right after is {oldest_s:.2f} s old"
        rows.append(_row(instances, "scheduler, under load", "decisions/s", [rate for rate, _ in loaded], note))
    return rows


async def _share(plane: LightPlane, seconds: float) -> float:
    """Percent of a core that the scheduler takes."""
    cpu_s, began = plane.scheduler.cpu_s(), time.perf_counter()
    await asyncio.sleep(seconds)
    return 100 * (plane.scheduler.cpu_s() - cpu_s) / (time.perf_counter() - began)


async def _view_ms(plane: LightPlane, calls: int = 20) -> float:
    """CPU milliseconds of the scheduler per call of ListInstances, heartbeats of that time included."""
    async with AsyncClient(plane.address) as client:
        await client.list_instances()
        before = plane.scheduler.cpu_s()
        for _ in range(calls):
            await client.list_instances()
        return (plane.scheduler.cpu_s() - before) / calls * 1e3


async def _load(plane: LightPlane, requests: int, seed: int) -> tuple[float, float]:
    """Requests of a few tokens over one session, a decision each: per second, and CPU milliseconds for each."""
    workload = Workload(streams=STREAMS, prompt_tokens=32, max_tokens=TOKENS, seed=seed)
    async with grpc.aio.insecure_channel(plane.address) as channel:
        before = plane.scheduler.cpu_s()
        wall_s = await over_session(channel, workload, requests)
        return requests / wall_s, (plane.scheduler.cpu_s() - before) / requests * 1e3


async def _oldest_heartbeat_s(plane: LightPlane) -> float:
    async with AsyncClient(plane.address) as client:
        return max(each.heartbeat_age_s for each in (await client.list_instances()).instances)


def _row(instances: int, case: str, unit: str, figures: list[float], note: str) -> Row:
    return Row(benchmark=f"{instances:,} instances", case=case, unit=unit, note=note, **spread(figures))
