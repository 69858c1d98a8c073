"""The gateway over a fleet of one real engine, beside vLLM's own server with the same engine."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, nullcontext

from tests.bench.affinity import kept_off
from tests.bench.control_plane import control_plane
from tests.bench.engines import Engine
from tests.bench.gateway.gateway_processes import gateway
from tests.bench.gateway.load_client import Load, load_client
from tests.bench.http_streams import COMPLETIONS
from tests.bench.pipe.vllm_server import vllm_server
from tests.bench.report import Row
from tests.bench.rounds import spread
from tests.bench.workload import Workload

OURS = "gateway"
VLLM = "vLLM's server"
STREAMS = 32
PROMPT_TOKENS = 32
UVLOOP = ("--uvloop",)  # as vLLM's server does


async def measure(engine: Engine, *, rounds: int, tokens: int) -> list[Row]:
    """Run every load through both, in turn: tokens/s of ours by vLLM's, and CPU seconds of the processes in front."""
    model = engine.settings.model.name
    async with AsyncExitStack() as stack:
        plane, theirs = await asyncio.gather(
            stack.enter_async_context(control_plane(engine, scheduler_flags=UVLOOP, executor_flags=UVLOOP)),
            stack.enter_async_context(vllm_server(engine, 0)),
        )
        ours = await stack.enter_async_context(gateway(plane.address, model, flags=UVLOOP))
        client = await stack.enter_async_context(load_client())
        pids = [os.getpid(), *plane.pids, *ours.pids, *theirs.pids, client.pid]
        ports: dict[str, tuple[int, Callable[[], float]]] = {
            OURS: (ours.port, lambda: ours.cpu_s() + plane.scheduler.cpu_s() + plane.executor.cpu_s()),
            VLLM: (theirs.port, theirs.cpu_s),
        }
        walls: dict[str, list[float]] = {name: [] for name in ports}
        costs: dict[str, list[float]] = {name: [] for name in ports}
        with nullcontext() if engine.bound_to is None else kept_off(engine.bound_to, pids):
            for number in range(rounds + 1):  # the first warms up
                workload = Workload(streams=STREAMS, prompt_tokens=PROMPT_TOKENS, max_tokens=tokens, seed=number)
                for name, (port, cpu_s) in ports.items():
                    await asyncio.sleep(engine.settle_s)
                    before, started = cpu_s(), time.perf_counter()
                    await client.run(Load(port=port, model=model, path=COMPLETIONS, workload=workload))
                    walls[name].append(time.perf_counter() - started)
                    costs[name].append((cpu_s() - before) / workload.output_tokens * 1e6)
                    # A run that is cut short leaves what it had.
                    print(f"{name}: {walls[name][-1]:.2f} s, {costs[name][-1]:.1f}", file=sys.stderr, flush=True)
    return _rows(walls, costs, tokens)


def _rows(walls: dict[str, list[float]], costs: dict[str, list[float]], tokens: int) -> list[Row]:
    benchmark = f"gateway, vLLM on the CPU, {STREAMS} streams x {tokens} tokens"
    ratios = [theirs / ours for theirs, ours in zip(walls[VLLM][1:], walls[OURS][1:], strict=True)]
    rates = {name: spread([STREAMS * tokens / wall for wall in of[1:]])["value"] for name, of in walls.items()}
    note = f"{rates[OURS]:,.0f} of {rates[VLLM]:,.0f} tokens/s"
    what = {OURS: "gateway, scheduler and executor's main process", VLLM: "vLLM's server"}
    return [
        Row(
            benchmark=benchmark,
            case=OURS,
            unit="of vLLM's tokens/s",
            target=">= 0.95",
            note=note,
            **spread(ratios),
        ),
        *(
            Row(benchmark=benchmark, case=what[name], unit="CPU s / 1M tokens", **spread(of[1:]))
            for name, of in costs.items()
        ),
    ]
