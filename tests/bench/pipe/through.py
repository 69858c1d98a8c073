"""Tokens per second through the control plane over those of the same AsyncLLM in a process of its own, by streams.

Both engines are up throughout and take turns, workload by workload; so is, on request, vLLM's own server with a third
one.  Beside the ratio: CPU seconds per million tokens of the scheduler, of the executor's main process, of the bare
engine's, of the server's, and of all clients.  Engines' own processes do not count.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, nullcontext
from dataclasses import dataclass

from tests.bench.affinity import kept_off
from tests.bench.control_plane import ControlPlane, control_plane
from tests.bench.direct_engine import DirectEngine, direct_engine
from tests.bench.engines import Engine
from tests.bench.pipe.client_process import Clients, clients
from tests.bench.pipe.vllm_server import VllmServer, vllm_server
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
    server: tuple[float, float] | None = None  # vLLM's own: tokens/s, CPU seconds


async def measure(
    engine: Engine,
    case: str,
    *,
    streams: Sequence[int],
    rounds: int,
    max_tokens: int,
    client_processes: int,
    turns: int = 1,
    beside_server: bool = False,
) -> list[Row]:
    rows = []
    async with AsyncExitStack() as stack:
        began = time.monotonic()
        plane = await stack.enter_async_context(control_plane(engine))
        direct = await stack.enter_async_context(direct_engine(engine))
        readers = await stack.enter_async_context(clients(plane.address, client_processes))
        server = await stack.enter_async_context(vllm_server(engine, client_processes)) if beside_server else None
        _tell(f"the engines are up after {time.monotonic() - began:.0f} s")
        pids = [os.getpid(), *plane.pids, direct.pid, *readers.pids, *(server.pids if server is not None else ())]
        with nullcontext() if engine.bound_to is None else kept_off(engine.bound_to, pids):
            for count in streams:
                measured = []
                for number in range(rounds + 1):  # the first warms up
                    size = max_tokens if number else max(8, max_tokens // 8)
                    seed = count * 1_000 + number
                    workload = Workload(
                        streams=count, prompt_tokens=PROMPT_TOKENS, max_tokens=size, seed=seed, turns=turns
                    )
                    measured.append(await _round(workload, engine, plane, direct, readers, server))
                    _tell(f"{count} streams, round {number} of {rounds}: {measured[-1]}")
                rows += _rows(case, count, measured[1:])
    return rows


def _tell(progress: str) -> None:
    """Print what is done: a run that is cut short leaves what it had."""
    print(progress, file=sys.stderr, flush=True)


async def _round(
    workload: Workload,
    engine: Engine,
    plane: ControlPlane,
    direct: DirectEngine,
    readers: Clients,
    server: VllmServer | None,
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
    beside = None
    if server is not None:
        await asyncio.sleep(engine.settle_s)
        server_s, server_cpu = await server.run(workload)
        beside = workload.output_tokens / server_s, server_cpu / millions
    scheduler, executor, client = ((one - other) / millions for one, other in zip(after, before, strict=True))
    return Round(
        ratio=alone_s / through_s,
        through=workload.output_tokens / through_s,
        alone=workload.output_tokens / alone_s,
        scheduler=scheduler,
        executor=executor,
        bare=bare / millions,
        clients=client,
        server=beside,
    )


def _rows(case: str, streams: int, rounds: list[Round]) -> list[Row]:
    through = statistics.median(each.through for each in rounds)
    alone = statistics.median(each.alone for each in rounds)

    def row(what: str, unit: str, figures: list[float], *, target: str = "", note: str = "") -> Row:
        benchmark = f"pipe, {case}, {streams} streams"
        return Row(benchmark=benchmark, case=what, unit=unit, target=target, note=note, **spread(figures))

    cpu = "CPU s / 1M tokens"
    rates = f"{through:,.0f} of {alone:,.0f} tokens/s"
    beside = [each.server for each in rounds if each.server is not None]
    rows = (
        [
            row("vLLM's own server", "tokens/s", [rate for rate, _ in beside]),
            row("vLLM's own server, its process", cpu, [used for _, used in beside]),
        ]
        if beside
        else []
    )
    return [
        *rows,
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
