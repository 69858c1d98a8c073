"""What a token costs an executor's main process on a real engine: CPU seconds per million, in three arms.

Each arm has an engine of its own, all are up throughout and take turns.  "steps" takes a step's outputs at once,
"streams" reads each request through ``AsyncLLM.generate``, "bare" is an application with ``AsyncLLM`` and text inside
it, without our code.  The engine core is a process of its own and not counted.  The executors' tokens go through a
scheduler to a client, so all that an executor does for them is in the figure; so is what requests cost by themselves.
Where the engine's computing is bound to a core, all other processes keep off that core.
"""

from __future__ import annotations

import asyncio
import os
import statistics
from contextlib import AsyncExitStack, nullcontext
from dataclasses import dataclass

import grpc

from tests.bench.affinity import kept_off
from tests.bench.control_plane import ControlPlane, control_plane
from tests.bench.direct_engine import direct_engine
from tests.bench.engines import Engine
from tests.bench.report import Row
from tests.bench.rounds import spread
from tests.bench.streams import run_bare
from tests.bench.workload import Workload

PROMPT_TOKENS = 32
WARM_UP_TOKENS = 16
TARGETS = {128: "<= 22", 256: "<= 18"}  # of the arm "steps"
TARGET_RATIO = "<= 0.85"


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One workload in one arm."""

    cost: float  # CPU seconds of the main process per million tokens
    rate: float  # tokens per second


async def measure(engine: Engine, *, rounds: int, streams: int, max_tokens: int, uvloop: bool = False) -> list[Row]:
    turns: dict[str, list[Turn]] = {"steps": [], "streams": [], "bare": []}
    more = ("--uvloop",) if uvloop else ()
    async with AsyncExitStack() as stack:
        steps = await stack.enter_async_context(control_plane(engine, executor_flags=more))
        streamed = await stack.enter_async_context(
            control_plane(engine, executor_flags=("--no-engine.vllm.step-path", *more))
        )
        direct = await stack.enter_async_context(direct_engine(engine))
        planes = {"steps": steps, "streams": streamed}
        channels = {
            name: await stack.enter_async_context(grpc.aio.insecure_channel(plane.address))
            for name, plane in planes.items()
        }
        pids = [os.getpid(), *steps.pids, *streamed.pids, direct.pid]
        stack.enter_context(nullcontext() if engine.bound_to is None else kept_off(engine.bound_to, pids))
        for number in range(rounds + 1):  # the first warms up
            length = max_tokens if number else WARM_UP_TOKENS
            workload = Workload(streams=streams, prompt_tokens=PROMPT_TOKENS, max_tokens=length, seed=number)
            for name, plane in planes.items():
                await asyncio.sleep(engine.settle_s)
                turns[name].append(await _through(plane, channels[name], workload))
            await asyncio.sleep(engine.settle_s)
            wall_s, cpu_s = await direct.run(workload)
            turns["bare"].append(_turn(workload, cpu_s, wall_s))
    return _rows(streams, {name: all_turns[1:] for name, all_turns in turns.items()}, uvloop=uvloop)


async def _through(plane: ControlPlane, channel: grpc.aio.Channel, workload: Workload) -> Turn:
    before = plane.executor.cpu_s()
    run = await run_bare(channel, workload, f"cost-{workload.streams}-{workload.seed}")
    return _turn(workload, plane.executor.cpu_s() - before, run.wall_s)


def _turn(workload: Workload, cpu_s: float, wall_s: float) -> Turn:
    return Turn(cost=cpu_s / workload.output_tokens * 1e6, rate=workload.output_tokens / wall_s)


def _rows(streams: int, turns: dict[str, list[Turn]], *, uvloop: bool) -> list[Row]:
    benchmark = f"executor's main process, {streams} streams"
    rows = [
        Row(
            benchmark=benchmark,
            case=f"{name}, uvloop" if uvloop and name != "bare" else name,
            unit="CPU s / 1M tokens",
            target=TARGETS.get(streams, "") if name == "steps" else "",
            note=f"{statistics.median(turn.rate for turn in each):,.0f} tokens/s",
            **spread([turn.cost for turn in each]),
        )
        for name, each in turns.items()
    ]
    ratios = [one.cost / other.cost for one, other in zip(turns["steps"], turns["bare"], strict=True)]
    return [*rows, Row(benchmark=benchmark, case="steps / bare", unit="", target=TARGET_RATIO, **spread(ratios))]
