"""The gateway's front beside vLLM's own server, with token sources in place of engines.

Both serve the same model, requests and beat to the same client.  The gateway gets its tokens from a scheduler, vLLM's
server makes them itself; the scheduler's and the sources' CPU time is given beside, and is not the gateway's.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from tests.bench.gateway.gateway_processes import gateway
from tests.bench.gateway.load_client import Load, LoadClient, load_client
from tests.bench.gateway.token_server import token_server
from tests.bench.http_streams import CHAT, COMPLETIONS
from tests.bench.light_executors import MODEL
from tests.bench.light_plane import light_plane
from tests.bench.report import Row
from tests.bench.rounds import spread
from tests.bench.workload import Workload

VLLM = "vLLM's server"
PROMPT_TOKENS = 32
PATHS = {"chat": CHAT, "completions": COMPLETIONS}


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """A server to measure."""

    name: str
    port: int
    cpu_s: Callable[[], float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A load."""

    route: str  # of PATHS
    streams: int
    tokens: int  # of each stream


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One load through one arm."""

    cpu_s: float  # of the front
    scheduler_s: float
    wall_s: float
    first_s: float  # median


async def measure(cases: Sequence[Case], *, rounds: int, step_s: float, workers: Sequence[int]) -> list[Row]:
    """Measure every arm in turn, round by round.  ``workers``: of the gateways, one gateway each."""
    rows = []
    async with AsyncExitStack() as stack:
        plane = await stack.enter_async_context(light_plane(executors=1, step_s=step_s))
        client = await stack.enter_async_context(load_client())
        arms = []
        for count in workers:
            ours = await stack.enter_async_context(gateway(plane.address, MODEL, workers=count, flags=("--uvloop",)))
            name = "gateway" if count == 1 else f"gateway, {count} workers"
            arms.append(Arm(name=name, port=ours.port, cpu_s=ours.cpu_s))
        server, port = await stack.enter_async_context(token_server(plane.address, step_s))
        arms.append(Arm(name=VLLM, port=port, cpu_s=server.cpu_s))
        for case in cases:
            turns: dict[str, list[Turn]] = {arm.name: [] for arm in arms}
            for number in range(rounds + 1):  # the first warms up
                for arm in arms:
                    turn = await _turn(arm, case, number, client, plane.scheduler.cpu_s)
                    turns[arm.name].append(turn)
                    print(f"{case} {arm.name}: {turn}", file=sys.stderr, flush=True)
            rows += _rows(case, {name: all_turns[1:] for name, all_turns in turns.items()})
    return rows


async def _turn(arm: Arm, case: Case, number: int, client: LoadClient, scheduler_s: Callable[[], float]) -> Turn:
    tokens = case.tokens if number else max(2, case.tokens // 8)
    workload = Workload(streams=case.streams, prompt_tokens=PROMPT_TOKENS, max_tokens=tokens, seed=number)
    load = Load(port=arm.port, model=MODEL, path=PATHS[case.route], workload=workload)
    before, scheduler, started = arm.cpu_s(), scheduler_s(), time.perf_counter()
    firsts = await client.run(load)
    return Turn(
        cpu_s=arm.cpu_s() - before,
        scheduler_s=scheduler_s() - scheduler,
        wall_s=time.perf_counter() - started,
        first_s=statistics.median(firsts),
    )


def _rows(case: Case, turns: dict[str, list[Turn]]) -> list[Row]:
    benchmark = f"gateway, {case.route}, {case.streams} streams x {case.tokens} tokens"
    tokens = case.streams * case.tokens
    rows = []
    for name, of_arm in turns.items():
        rate = statistics.median(tokens / each.wall_s for each in of_arm)
        scheduler = statistics.median(each.scheduler_s / tokens * 1e6 for each in of_arm)
        request = statistics.median(each.cpu_s / case.streams for each in of_arm)
        rows += [
            Row(
                benchmark=benchmark,
                case=name,
                unit="CPU s / 1M tokens",
                note=f"{rate:,.0f} tokens/s; {request * 1e3:.1f} CPU s / 1,000 requests"
                + ("" if name == VLLM else f"; scheduler {scheduler:.1f}"),
                **spread([each.cpu_s / tokens * 1e6 for each in of_arm]),
            ),
            Row(
                benchmark=benchmark,
                case=f"{name}: first token, median",
                unit="ms",
                **spread([each.first_s * 1e3 for each in of_arm]),
            ),
        ]
    return rows
