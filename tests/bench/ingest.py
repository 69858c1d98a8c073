"""What tokens cost the scheduler: CPU seconds per million of them, from executors that cost next to nothing.

Requests are part of it, as in ``relay``: their cost is what ``request_cost`` measures.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import grpc

from tests.bench.light_plane import LightPlane, light_plane
from tests.bench.report import Row
from tests.bench.rounds import spread
from tests.bench.streams import Run, run_bare, run_session
from tests.bench.workload import Workload

PROMPT_TOKENS = 32
SETTLE_S = 0.7  # until the scheduler has the first heartbeats
Reader = Callable[[grpc.aio.Channel, Workload, str], Awaitable[Run]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    name: str
    reader: Reader
    streams: int
    step_s: float
    target: str = ""


CASES = (
    Case(name="one session, 32 streams", reader=run_session, streams=32, step_s=0.01, target="<= 25"),
    Case(name="one session, 256 streams", reader=run_session, streams=256, step_s=0.01, target="<= 6"),
    Case(name="one session, 512 streams", reader=run_session, streams=512, step_s=0.01, target="<= 4"),
    Case(name="Generate, 32 streams", reader=run_bare, streams=32, step_s=0.01, target="<= 60"),
    Case(name="one session, 512 streams, as fast as it goes", reader=run_session, streams=512, step_s=0.001),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """CPU seconds per million tokens, by process."""

    scheduler: float
    sources: float
    reader: float
    tokens_per_s: float


async def measure(*, rounds: int, max_tokens: int) -> list[Row]:
    rows = []
    for case in CASES:
        async with (
            light_plane(executors=1, step_s=case.step_s) as plane,
            grpc.aio.insecure_channel(plane.address) as channel,
        ):
            await asyncio.sleep(SETTLE_S)
            measured = [await _round(case, plane, channel, number, max_tokens) for number in range(rounds + 1)]
        rows.append(_row(case, measured[1:]))
    return rows


async def _round(case: Case, plane: LightPlane, channel: grpc.aio.Channel, number: int, max_tokens: int) -> Round:
    """One workload; the first one, which warms up, is short."""
    workload = Workload(
        streams=case.streams,
        prompt_tokens=PROMPT_TOKENS,
        max_tokens=max_tokens if number else 10,
        seed=number,
    )
    scheduler, sources, reader = plane.scheduler.cpu_s(), plane.sources.cpu_s(), time.process_time()
    run = await case.reader(channel, workload, f"ingest-{number}")
    per_million = 1e6 / workload.output_tokens
    return Round(
        scheduler=(plane.scheduler.cpu_s() - scheduler) * per_million,
        sources=(plane.sources.cpu_s() - sources) * per_million,
        reader=(time.process_time() - reader) * per_million,
        tokens_per_s=run.tokens / run.wall_s,
    )


def _row(case: Case, rounds: list[Round]) -> Row:
    rate = spread([each.tokens_per_s for each in rounds])["value"]
    sources = spread([each.sources for each in rounds])["value"]
    reader = spread([each.reader for each in rounds])["value"]
    return Row(
        benchmark="ingest",
        case=case.name,
        unit="CPU s / 1M tokens",
        target=case.target,
        note=f"{rate:,.0f} tokens/s; executors {sources:.1f}, reader {reader:.1f}",
        **spread([each.scheduler for each in rounds]),
    )
