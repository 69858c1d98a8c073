"""What the relay of tokens costs: CPU seconds per million of them, by process.

Counted over whole requests, so their submission and placement are in it: a few per cent at 300 tokens each.  The
engine's step is long enough for the machine to keep up with one message per token; the messages per token say
whether it did.  A bare grpc.aio server that writes one message per token at the same beat is measured beside it:
nothing that sends as many through grpc.aio can cost less.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace

import grpc

from tests.bench.bare_server import BareServer, bare_server
from tests.bench.control_plane import ControlPlane, control_plane
from tests.bench.direct_engine import DirectEngine, direct_engine
from tests.bench.engines import simulated
from tests.bench.report import Row
from tests.bench.rounds import Spread, spread
from tests.bench.streams import run_bare, run_session
from tests.bench.workload import Workload

STEP_S = 0.025
PROMPT_TOKENS = 32
SESSION_TARGETS = {32: "<= 25", 256: "<= 6", 512: "<= 4"}
YARDSTICK_TOKENS = 120  # per stream; enough where a request costs next to nothing


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """CPU seconds per million tokens (or messages, for the bare server)."""

    scheduler: float
    in_session: float  # the scheduler, with all requests over one session
    executor: float
    engine: float  # alone in a process
    bare: float
    tokens_per_s: float
    messages_per_token: float
    tokens_per_frame: float


async def measure(*, rounds: int, streams: int, max_tokens: int) -> list[Row]:
    engine = simulated(step_s=STEP_S, streams=streams)
    async with (
        control_plane(engine) as plane,
        direct_engine(engine) as direct,
        bare_server() as bare,
        grpc.aio.insecure_channel(plane.address) as channel,
    ):
        measured = []
        for number in range(rounds + 1):  # the first warms up
            workload = Workload(
                streams=streams,
                prompt_tokens=PROMPT_TOKENS,
                max_tokens=max_tokens if number else max(2, max_tokens // 10),
                seed=number,
            )
            measured.append(await _round(workload, plane, channel, direct, bare))
    return _rows(streams, measured[1:])


async def _round(
    workload: Workload, plane: ControlPlane, channel: grpc.aio.Channel, direct: DirectEngine, bare: BareServer
) -> Round:
    millions = workload.output_tokens / 1e6
    scheduler, executor = plane.scheduler.cpu_s(), plane.executor.cpu_s()
    run = await run_bare(channel, workload, f"relay-{workload.streams}-{workload.seed}")
    scheduler, executor = plane.scheduler.cpu_s() - scheduler, plane.executor.cpu_s() - executor
    in_session = plane.scheduler.cpu_s()
    framed = await run_session(channel, workload, f"session-{workload.streams}-{workload.seed}")
    in_session = plane.scheduler.cpu_s() - in_session
    short = replace(workload, max_tokens=min(workload.max_tokens, YARDSTICK_TOKENS))
    _, engine = await direct.run(short)
    _, least = await bare.run(short, STEP_S)
    return Round(
        scheduler=scheduler / millions,
        in_session=in_session / millions,
        executor=executor / millions,
        engine=engine / short.output_tokens * 1e6,
        bare=least / short.output_tokens * 1e6,
        tokens_per_s=run.tokens / run.wall_s,
        messages_per_token=run.messages / run.tokens,
        tokens_per_frame=framed.tokens / framed.messages,
    )


def _rows(streams: int, rounds: list[Round]) -> list[Row]:
    rate = statistics.median(each.tokens_per_s for each in rounds)
    messages = statistics.median(each.messages_per_token for each in rounds)
    per_frame = statistics.median(each.tokens_per_frame for each in rounds)
    engine = statistics.median(each.engine for each in rounds)

    def row(what: str, figures: Spread, *, target: str = "", note: str = "") -> Row:
        return Row(
            benchmark=f"relay, {streams} streams",
            case=what,
            unit="CPU s / 1M tokens",
            target=target,
            note=note,
            **figures,
        )

    return [
        row(
            "scheduler",
            spread([each.scheduler for each in rounds]),
            target="<= 50",
            note=f"{rate:,.0f} tokens/s, {messages:.2f} messages per token",
        ),
        row(
            "scheduler, one session",
            spread([each.in_session for each in rounds]),
            target=SESSION_TARGETS.get(streams, ""),
            note=f"{per_frame:.1f} tokens per frame",
        ),
        row(
            "executor beyond its engine",
            spread([each.executor - each.engine for each in rounds]),
            note=f"the simulated engine alone takes {engine:.0f}",
        ),
        row(
            "bare grpc.aio server",
            spread([each.bare for each in rounds]),
            note="the same messages and nothing else: the floor",
        ),
    ]
