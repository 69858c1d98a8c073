"""Ten times what the fleet can take, for half a minute: memory, CRITICAL's first token, refusals by class, recovery.

One simulated engine of 8 sequences; requests of all classes come at ten times its rate, 1 of 20 of them CRITICAL, which
is half of what it can take.  A queue of ``QUEUE_LIMIT`` is full for nearly all of the time.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from sage_client import AsyncClient, SageError, Tokens, TryAgainError
from tests.bench.child import Child
from tests.bench.control_plane import control_plane
from tests.bench.engines import simulated
from tests.bench.report import Row

STEP_S = 0.01
STREAMS = 8
TOKENS = 64
QUEUE_LIMIT = 200
CAPACITY = STREAMS / (STEP_S * TOKENS)  # requests/s
CLASSES = {"critical": 1, "high": 2, "normal": 12, "low": 3, "background": 2}  # of 20
RECOVERED = 2.0  # x the first token of an idle fleet


@dataclass(slots=True)
class Overload:
    """What became of the requests."""

    sent: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)  # at once, or displaced
    failed: Counter[str] = field(default_factory=Counter)
    first_token_s: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in CLASSES})


async def measure(*, seconds: float, times: float = 10.0) -> list[Row]:
    """Overload for ``seconds`` at ``times`` the capacity."""
    engine = simulated(step_s=STEP_S, streams=STREAMS)
    flags = (f"--queue.limit-per-model={QUEUE_LIMIT}", "--policy=priority")
    async with control_plane(engine, scheduler_flags=flags) as plane, AsyncClient(plane.address) as client:
        idle_s = median([await _first_token(client, "critical") for _ in range(10)])
        before, found = _resident_mib(plane.scheduler), Overload()
        peak = [before]
        watch = asyncio.create_task(_watch(plane.scheduler, peak))
        await _send(client, found, seconds, times * CAPACITY)
        recovered_s = await _recover(client, idle_s)
        watch.cancel()
        return _rows(found, idle_s, recovered_s, before, max(peak), _resident_mib(plane.scheduler))


async def _send(client: AsyncClient, found: Overload, seconds: float, rate: float) -> None:
    rng, began, due = random.Random(1), time.monotonic(), 0.0
    classes = [name for name, share in CLASSES.items() for _ in range(share)]
    async with asyncio.TaskGroup() as tasks:
        while due < seconds:
            due += rng.expovariate(rate)
            await asyncio.sleep(max(0.0, began + due - time.monotonic()))
            tasks.create_task(_one(client, rng.choice(classes), found))


async def _one(client: AsyncClient, priority: str, found: Overload) -> None:
    found.sent[priority] += 1
    try:
        found.first_token_s[priority].append(await _first_token(client, priority))
    except TryAgainError:
        found.refused[priority] += 1
    except SageError:
        found.failed[priority] += 1


async def _first_token(client: AsyncClient, priority: str) -> float:
    began, first = time.monotonic(), None
    stream = client.generate(token_ids=list(range(1, 33)), priority=priority, max_tokens=TOKENS, ignore_eos=True)
    async for event in stream:
        if first is None and isinstance(event, Tokens):
            first = time.monotonic() - began
    return first if first is not None else float("inf")


async def _recover(client: AsyncClient, idle_s: float) -> float:
    """Return the seconds after the last stream until a request of the lowest class starts as on an idle fleet."""
    began = time.monotonic()
    while await _first_token(client, "background") > RECOVERED * idle_s:
        await asyncio.sleep(0.05)
    return time.monotonic() - began


async def _watch(child: Child, peak: list[float]) -> None:
    while True:
        await asyncio.sleep(0.25)
        peak.append(_resident_mib(child))


def _resident_mib(child: Child) -> float:
    status = Path(f"/proc/{child.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def _rows(found: Overload, idle_s: float, recovered_s: float, before: float, peak: float, after: float) -> list[Row]:
    rows = []
    critical = sorted(found.first_token_s["critical"]) or [float("nan")]
    p99 = critical[min(len(critical) - 1, int(0.99 * len(critical)))]
    idle = f"idle: {idle_s * 1e3:.0f} ms"
    rows.append(_row("CRITICAL's first token, median", median(critical) * 1e3, "ms", note=idle))
    served = f"{len(critical)} of {found.sent['critical']}"
    rows.append(_row("CRITICAL's first token, p99", p99 * 1e3, "ms", note=served))
    for name in CLASSES:
        share = 100 * found.refused[name] / max(1, found.sent[name])
        note = f"{found.sent[name]} sent, {found.failed[name]} failed otherwise"
        rows.append(_row(f"refused or displaced, {name.upper()}", share, "%", note=note))
    rows.append(_row("scheduler's memory, peak over start", peak - before, "MiB", note=f"start {before:.0f} MiB"))
    rows.append(_row("scheduler's memory, end over start", after - before, "MiB"))
    note = "until a BACKGROUND request starts as on an idle fleet"
    rows.append(_row("recovery after the last stream", recovered_s, "s", note=note))
    return rows


def _row(case: str, value: float, unit: str, *, note: str = "") -> Row:
    return Row(benchmark="overload, 10x", case=case, value=value, unit=unit, lowest=value, highest=value, note=note)
