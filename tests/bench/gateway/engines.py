"""The gateway over a fleet of one real engine, beside vLLM's own server with the same engine."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass

from tests.bench.affinity import kept_off
from tests.bench.control_plane import ControlPlane, control_plane
from tests.bench.engines import Engine
from tests.bench.gateway.engine_rows import OURS, VLLM, rows
from tests.bench.gateway.engine_turns import Arm, LoadKind, Turn, turn
from tests.bench.gateway.gateway_processes import GatewayProcesses, gateway
from tests.bench.gateway.load_clients import LoadClients, load_clients
from tests.bench.http_streams import CHAT, COMPLETIONS
from tests.bench.pipe.vllm_server import VllmServer, vllm_server
from tests.bench.process_tree import descendants_cpu_s
from tests.bench.report import Row

STREAMS = 32
PROMPT_TOKENS = 32
UVLOOP = ("--uvloop",)  # as vLLM's server does


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """An engine, the loads it gets and what is in front of it."""

    name: str  # of the engine
    engine: Engine
    kinds: Sequence[LoadKind]
    workers: Sequence[int] = (1,)  # processes of each gateway
    clients: int = 1  # processes
    within_s: float = 3_600.0  # seconds after which no further round begins


def on_the_cpu(engine: Engine, tokens: int) -> Setup:
    """Return the tiny model's setup: text completions through one gateway."""
    kind = LoadKind(path=COMPLETIONS, streams=STREAMS, prompt_tokens=PROMPT_TOKENS, max_tokens=tokens)
    return Setup(name="vLLM on the CPU", engine=engine, kinds=[kind])


def on_a_gpu(engine: Engine, streams: Sequence[int], tokens: int, workers: Sequence[int], within_s: float) -> Setup:
    """Return the wide model's setup: chat and text completions, ``streams`` at once in turn."""
    kinds = [
        LoadKind(path=path, streams=each, prompt_tokens=PROMPT_TOKENS, max_tokens=tokens)
        for path in (CHAT, COMPLETIONS)
        for each in streams
    ]
    return Setup(name="vLLM on a GPU", engine=engine, kinds=kinds, workers=workers, clients=4, within_s=within_s)


async def measure(setup: Setup, *, rounds: int) -> list[Row]:
    """Run every load through all arms, in turn.  The first round warms up."""
    engine = setup.engine
    until = time.monotonic() + setup.within_s
    turns: dict[LoadKind, list[dict[str, Turn]]] = {kind: [] for kind in setup.kinds}
    seeds = itertools.count()  # no prompt comes twice: prefix caches would serve it
    async with _up(setup) as up:
        with nullcontext() if engine.bound_to is None else kept_off(engine.bound_to, up.pids):
            for number in range(rounds + 1):
                if number > 1 and time.monotonic() > until:
                    break
                for kind, taken in turns.items():
                    taken.append({})
                    for arm in up.arms:
                        await asyncio.sleep(engine.settle_s)
                        took = taken[-1][arm.name] = await turn(arm, kind, up.clients, engine, next(seeds))
                        # A run that is cut short leaves what it had.
                        _say(f"{number}: {kind.name}, {arm.name}: {took}")
    return [row for kind, taken in turns.items() for row in rows(setup.name, kind, taken[1:])]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Up:
    """Everything that runs."""

    arms: Sequence[Arm]
    clients: LoadClients
    pids: list[int]  # of all but the engines' own processes


@asynccontextmanager
async def _up(setup: Setup) -> AsyncIterator[_Up]:
    engine, model = setup.engine, setup.engine.settings.model.name
    async with AsyncExitStack() as stack:
        # One after the other: on a GPU the second finds what the first has compiled.
        started = control_plane(engine, scheduler_flags=UVLOOP, executor_flags=UVLOOP)
        plane = await stack.enter_async_context(started)
        _say("the executor's engine serves")
        theirs = await stack.enter_async_context(vllm_server(engine, 0))
        _say("the engine of vLLM's server serves")
        ours = await asyncio.gather(
            *(
                stack.enter_async_context(gateway(plane.address, model, workers=workers, flags=UVLOOP))
                for workers in setup.workers
            )
        )
        clients = await stack.enter_async_context(load_clients(setup.clients))
        behind = (_ours(workers, each, plane) for workers, each in zip(setup.workers, ours, strict=True))
        pids = [os.getpid(), *plane.pids, *theirs.pids, *clients.pids, *(pid for each in ours for pid in each.pids)]
        yield _Up(arms=[_vllm(theirs), *behind], clients=clients, pids=pids)


def _vllm(server: VllmServer) -> Arm:
    pid = server.pids[0]
    return Arm(
        name=VLLM,
        port=server.port,
        parts={"main process": server.cpu_s, "engine's process": lambda: descendants_cpu_s(pid)},
    )


def _ours(workers: int, processes: GatewayProcesses, plane: ControlPlane) -> Arm:
    return Arm(
        name=OURS if workers == 1 else f"{OURS}, {workers} workers",
        port=processes.port,
        parts={
            "gateway": processes.cpu_s,
            "scheduler": plane.scheduler.cpu_s,
            "executor's main process": plane.executor.cpu_s,
            "engine's process": lambda: descendants_cpu_s(plane.executor.pid),
        },
    )


def _say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)
