"""Tokens per second through the control plane over those of the same AsyncLLM in a process of its own, by streams.

Both engines are up throughout and take turns, workload by workload.  Beside the ratio: CPU seconds per million tokens
of the scheduler, of the executor's main process, of the bare engine's, and of all clients.  Engines' own processes do
not count.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from tests.bench.affinity import kept_off
from tests.bench.control_plane import ControlPlane, control_plane
from tests.bench.direct_engine import DirectEngine, direct_engine
from tests.bench.engines import Engine
from tests.bench.pipe.client_process import Clients, clients
from tests.bench.report import Row
from tests.bench.rounds import spread
from tests.bench.workload import Workload

PROMPT_TOKENS = 32
RATIO_TARGETS = {32: ">= 0.98", 256: ">= 1.0", 512: ">= 1.1"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """One workload through each arm; CPU seconds per million output tokens."""

    ratio: float  # tokens/s through the control plane over those in-process
    through: float  # tokens/s
    alone: float  # tokens/s
    scheduler: float
    executor: float
    bare: float  # the process that has the bare engine
    clients: float


async def measure(
    engine: Engine, case: str, *, streams: Sequence[int], rounds: int, max_tokens: int, client_processes: int
) -> list[Row]:
    rows = []
    async with (
        control_plane(engine) as plane,
        direct_engine(engine) as direct,
        clients(plane.address, client_processes) as readers,
    ):
        pids = [os.getpid(), *plane.pids, direct.pid, *readers.pids]
        with nullcontext() if engine.bound_to is None else kept_off(engine.bound_to, pids):
            for count in streams:
                measured = []
                for number in range(rounds + 1):  # the first warms up
                    size = max_tokens if number else max(8, max_tokens // 8)
                    seed = count * 1_000 + number
                    workload = Workload(streams=count, prompt_tokens=PROMPT_TOKENS, max_tokens=size, seed=seed)
                    measured.append(await _round(workload, engine, plane, direct, readers))
                rows += _rows(case, count, measured[1:])
    return rows


async def _round(
    workload: Workload, engine: Engine, plane: ControlPlane, direct: DirectEngine, readers: Clients
) -> Round:
    await asyncio.sleep(engine.settle_s)
    alone_s, bare = await direct.run(workload)
    await asyncio.sleep(engine.settle_s)
    before = plane.scheduler.cpu_s(), plane.executor.cpu_s(), readers.cpu_s()
    started = time.perf_counter()
    await readers.run(workload)
    through_s = time.perf_counter() - started
    after = plane.scheduler.cpu_s(), plane.executor.cpu_s(), readers.cpu_s()
    millions = workload.output_tokens / 1e6
    scheduler, executor, client = ((one - other) / millions for one, other in zip(after, before, strict=True))
    return Round(
        ratio=alone_s / through_s,
        through=workload.output_tokens / through_s,
        alone=workload.output_tokens / alone_s,
        scheduler=scheduler,
        executor=executor,
        bare=bare / millions,
        clients=client,
    )


def _rows(case: str, streams: int, rounds: list[Round]) -> list[Row]:
    through = statistics.median(each.through for each in rounds)
    alone = statistics.median(each.alone for each in rounds)

    def row(what: str, unit: str, figures: list[float], *, target: str = "", note: str = "") -> Row:
        benchmark = f"pipe, {case}, {streams} streams"
        return Row(benchmark=benchmark, case=what, unit=unit, target=target, note=note, **spread(figures))

    cpu = "CPU s / 1M tokens"
    rates = f"{through:,.0f} of {alone:,.0f} tokens/s"
    return [
        row(
            "through us",
            "of in-process",
            [each.ratio for each in rounds],
            target=RATIO_TARGETS.get(streams, ""),
            note=rates,
        ),
        row("scheduler", cpu, [each.scheduler for each in rounds]),
        row("executor, main process", cpu, [each.executor for each in rounds]),
        row("bare AsyncLLM with text, main process", cpu, [each.bare for each in rounds]),
        row("clients, SDK", cpu, [each.clients for each in rounds]),
    ]
