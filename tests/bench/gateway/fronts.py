"""The gateway beside vLLM's own server, with token sources in place of engines: the fronts alone.

Both serve the same model, requests and beat to the same client.  The gateway gets its tokens from a scheduler, vLLM's
server makes them itself, so the scheduler's CPU time is given beside the gateway's.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
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

OURS = "gateway"
VLLM = "vLLM's server"
BEAT_S = 0.01
STREAMS = 64
PROMPT_TOKENS = 32
SHORT = 4  # tokens of a request whose cost is the request's own
MANY_STREAMS = 512
"""More than vLLM's server can follow at ``BEAT_S`` on one core: it sends as much as it can."""

MANY_TOKENS = 192
TURNS_ALONE = 15


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A kind of request."""

    name: str
    path: str
    more: dict[str, object]
    target: str  # CPU s / 1M tokens of the gateway


KINDS = (
    Kind(name="chat", path=CHAT, more={}, target="<= 15"),
    Kind(name="completions", path=COMPLETIONS, more={}, target="<= 15"),
    Kind(name="chat that is not plain", path=CHAT, more={"return_prompt_text": True}, target="<= 30"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """A server to measure."""

    name: str
    port: int
    cpu_s: Callable[[], float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One load through one arm."""

    cpu_s: float  # of the front
    scheduler_s: float
    wall_s: float
    first_s: float  # median


class Fronts:
    """The arms of one beat, and the client they share."""

    def __init__(self, arms: list[Arm], client: LoadClient, scheduler_s: Callable[[], float]) -> None:
        self.arms = arms
        self._client = client
        self._scheduler_s = scheduler_s

    async def turn(self, arm: Arm, kind: Kind, *, streams: int, tokens: int, seed: int) -> Turn:
        """Run one load."""
        workload = Workload(streams=streams, prompt_tokens=PROMPT_TOKENS, max_tokens=tokens, seed=seed)
        load = Load(port=arm.port, model=MODEL, path=kind.path, workload=workload, more=kind.more)
        before, scheduler, started = arm.cpu_s(), self._scheduler_s(), time.perf_counter()
        firsts = await self._client.run(load)
        turn = Turn(
            cpu_s=arm.cpu_s() - before,
            scheduler_s=self._scheduler_s() - scheduler,
            wall_s=time.perf_counter() - started,
            first_s=statistics.median(firsts),
        )
        if streams > 1:  # a run that is cut short leaves what it had
            print(f"{kind.name}, {streams} x {tokens}, {arm.name}: {turn}", file=sys.stderr, flush=True)
        return turn


@asynccontextmanager
async def _fronts() -> AsyncIterator[Fronts]:
    async with AsyncExitStack() as stack:
        plane = await stack.enter_async_context(light_plane(executors=1, step_s=BEAT_S))
        client = await stack.enter_async_context(load_client())
        one, two, (server, port) = await asyncio.gather(
            stack.enter_async_context(gateway(plane.address, MODEL, flags=("--uvloop",))),
            stack.enter_async_context(gateway(plane.address, MODEL, workers=2, flags=("--uvloop",))),
            stack.enter_async_context(token_server(plane.address, BEAT_S)),
        )
        arms = [
            Arm(name=OURS, port=one.port, cpu_s=one.cpu_s),
            Arm(name=f"{OURS}, 2 workers", port=two.port, cpu_s=two.cpu_s),
            Arm(name=VLLM, port=port, cpu_s=server.cpu_s),
        ]
        yield Fronts(arms, client, plane.scheduler.cpu_s)


async def measure(*, rounds: int, tokens: int) -> list[Row]:
    """Measure every arm in turn, round by round.  ``tokens``: of each stream where its CPU time is measured."""
    async with _fronts() as fronts:
        rows = await _first_tokens(fronts, rounds)
        for kind in KINDS:
            rows += await _cost(fronts, kind, rounds, tokens)
        return rows + await _rate(fronts, rounds)


async def _cost(fronts: Fronts, kind: Kind, rounds: int, tokens: int) -> list[Row]:
    """Tell a request's cost from its tokens': of two loads, one has next to none."""
    per_token: dict[str, list[float]] = {arm.name: [] for arm in fronts.arms}
    per_request: dict[str, list[float]] = {arm.name: [] for arm in fronts.arms}
    scheduler: dict[str, list[float]] = {arm.name: [] for arm in fronts.arms}
    for number in range(rounds + 1):  # the first warms up
        for arm in fronts.arms:
            length = tokens if number else max(SHORT + 1, tokens // 8)
            short = await fronts.turn(arm, kind, streams=STREAMS, tokens=SHORT, seed=2 * number)
            long = await fronts.turn(arm, kind, streams=STREAMS, tokens=length, seed=2 * number + 1)
            if not number:
                continue
            more = STREAMS * (length - SHORT)
            of_token = (long.cpu_s - short.cpu_s) / more
            per_token[arm.name].append(of_token * 1e6)
            per_request[arm.name].append((short.cpu_s / STREAMS - SHORT * of_token) * 1e3)
            scheduler[arm.name].append((long.scheduler_s - short.scheduler_s) / more * 1e6)
    benchmark = f"gateway, {kind.name}, {STREAMS} streams x {tokens} tokens"
    rows = []
    for arm in fronts.arms:
        beside = "" if arm.name == VLLM else f"scheduler {statistics.median(scheduler[arm.name]):.1f}"
        target = kind.target if arm.name == OURS else ""
        tokens_row = Row(
            benchmark=benchmark,
            case=arm.name,
            unit="CPU s / 1M tokens",
            target=target,
            note=beside,
            **spread(per_token[arm.name]),
        )
        requests_row = Row(
            benchmark=benchmark, case=arm.name, unit="CPU s / 1,000 requests", **spread(per_request[arm.name])
        )
        rows += [tokens_row, requests_row]
    return rows


async def _rate(fronts: Fronts, rounds: int) -> list[Row]:
    """Measure tokens/s where tokens come faster than they can be sent."""
    rates: dict[str, list[float]] = {arm.name: [] for arm in fronts.arms}
    for number in range(rounds + 1):
        for arm in fronts.arms:
            length = MANY_TOKENS if number else MANY_TOKENS // 8
            turn = await fronts.turn(arm, KINDS[0], streams=MANY_STREAMS, tokens=length, seed=1_000 + number)
            rates[arm.name].append(MANY_STREAMS * length / turn.wall_s)
    own = rates[VLLM][1:]
    return [
        Row(
            benchmark=f"gateway, chat, {MANY_STREAMS} streams x {MANY_TOKENS} tokens",
            case=arm.name,
            unit="of vLLM's tokens/s",
            target=">= 0.95" if arm.name == OURS else "",
            note=f"{statistics.median(rates[arm.name][1:]):,.0f} tokens/s",
            **spread([rate / of_vllm for rate, of_vllm in zip(rates[arm.name][1:], own, strict=True)]),
        )
        for arm in fronts.arms
    ]


async def _first_tokens(fronts: Fronts, rounds: int) -> list[Row]:
    """Measure the time to the first token of requests that run alone; a beat of it is the source's."""
    firsts: dict[str, list[float]] = {arm.name: [] for arm in fronts.arms}
    for number in range(rounds * TURNS_ALONE):
        for arm in fronts.arms:
            turn = await fronts.turn(arm, KINDS[0], streams=1, tokens=SHORT, seed=2_000 + number)
            firsts[arm.name].append(turn.first_s * 1e3)
    own = statistics.median(firsts[VLLM])
    return [
        Row(
            benchmark="gateway, chat, first token of a request alone",
            case=arm.name,
            unit="ms",
            note="" if arm.name == VLLM else f"{statistics.median(firsts[arm.name]) - own:+.1f} ms to vLLM's server",
            **spread(firsts[arm.name]),
        )
        for arm in fronts.arms
    ]
