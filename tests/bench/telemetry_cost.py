"""What telemetry costs: requests per second at saturation with everything on, over those with everything off.

Two control planes of the same build are up throughout and take turns, in an order that alternates.  On: every request
traced (sampling ratio 1), spans and metrics pushed to an OTLP receiver in a process of its own, both metrics pages
scraped every second.  Requests are counted while the load is steady, so that what telemetry puts off is paid for by
what it put off before; CPU seconds are counted until everything is delivered.
"""

from __future__ import annotations

import asyncio
import random
import re
import statistics
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc

from sage.controlplane.v1 import inference_pb2
from tests.bench.child import child
from tests.bench.control_plane import ControlPlane, control_plane
from tests.bench.engines import Engine, simulated
from tests.bench.free_port import free_port
from tests.bench.report import Row
from tests.bench.rounds import spread
from tests.bench.telemetry_sink import READY
from tests.bench.workload import Workload

STREAMS = 32
PROMPT_TOKENS = 32
STEP_S = 0.002
STEADY_AFTER_S = 1.2  # longer than spans wait for each other
WINDOW_S = 2.5
SETTLE_S = 2.4  # after the load: twice as long, and everything is delivered
POLL_S = 0.2
SCRAPE_EVERY_S = 1.0
DELIVERED_WITHIN_S = 20.0
CALL_TIMEOUT_S = 60.0
START_TIMEOUT_S = 20.0
RESAMPLES = 4_000
CONFIDENCE = 0.95
SPANS = re.compile(r'^sage_telemetry_spans_total\{result="(\w+)"\} (\S+)$', re.MULTILINE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One arm of one round."""

    requests_per_s: float
    scheduler: float  # CPU seconds per 1,000 requests
    executor: float  # the same


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    plane: ControlPlane
    channel: grpc.aio.Channel
    pages: tuple[str, ...] = ()  # URLs; empty where telemetry is off


async def measure(*, rounds: int, max_tokens: int) -> list[Row]:
    engine = simulated(step_s=STEP_S, streams=STREAMS)
    off: list[Turn] = []
    on: list[Turn] = []
    async with _silent(engine) as silent, _observed(engine) as observed:
        for number in range(rounds + 1):  # the first warms up
            order = ((silent, off), (observed, on)) if number % 2 else ((observed, on), (silent, off))
            for arm, turns in order:
                turns.append(await _turn(arm, max_tokens, seed=number))
        fetched = await asyncio.gather(*map(_fetch, observed.pages))
    dropped = sum(count for page in fetched for count in _spans(page)[1:])
    return _rows(max_tokens, off[1:], on[1:], dropped)


@asynccontextmanager
async def _silent(engine: Engine) -> AsyncIterator[Arm]:
    async with control_plane(engine) as plane, grpc.aio.insecure_channel(plane.address) as channel:
        yield Arm(plane=plane, channel=channel)


@asynccontextmanager
async def _observed(engine: Engine) -> AsyncIterator[Arm]:
    ports = [free_port(), free_port()]
    async with child("telemetry-sink", "tests.bench.telemetry_sink") as sink:
        port = (await sink.wait_for(READY, START_TIMEOUT_S)).removeprefix(READY)
        scheduler, executor = (
            ("--telemetry.otlp-endpoint", f"http://127.0.0.1:{port}", "--telemetry.metrics-listen", f"127.0.0.1:{page}")
            for page in ports
        )
        async with (
            control_plane(engine, scheduler_flags=scheduler, executor_flags=executor) as plane,
            grpc.aio.insecure_channel(plane.address) as channel,
        ):
            pages = tuple(f"http://127.0.0.1:{page}/metrics" for page in ports)
            yield Arm(plane=plane, channel=channel, pages=pages)


async def _turn(arm: Arm, max_tokens: int, *, seed: int) -> Turn:
    processes = (arm.plane.scheduler, arm.plane.executor)
    before = [process.cpu_s() for process in processes]
    scraping = asyncio.create_task(_scrape(arm.pages))
    ended_at = await _load(arm.channel, max_tokens, seed)
    scraping.cancel()
    await asyncio.sleep(SETTLE_S)  # in either arm, as idling costs something as well
    scheduler, executor = (
        (process.cpu_s() - start) / len(ended_at) * 1_000 for process, start in zip(processes, before, strict=True)
    )
    await _delivered(arm.pages)
    counted = sum(STEADY_AFTER_S <= at < STEADY_AFTER_S + WINDOW_S for at in ended_at)
    return Turn(requests_per_s=counted / WINDOW_S, scheduler=scheduler, executor=executor)


async def _load(channel: grpc.aio.Channel, max_tokens: int, seed: int) -> list[float]:
    """STREAMS requests at any time, of ``max_tokens`` on average, until the window is over.

    When each of them ended, in seconds from the start.
    """
    generate: grpc.aio.UnaryStreamMultiCallable[inference_pb2.GenerateRequest, bytes] = channel.unary_stream(
        "/sage.controlplane.v1.InferenceService/Generate",
        request_serializer=inference_pb2.GenerateRequest.SerializeToString,
        response_deserializer=None,  # the reader must not be what limits the run
    )
    workload = Workload(streams=STREAMS, prompt_tokens=PROMPT_TOKENS, max_tokens=max_tokens, seed=seed)
    started = time.perf_counter()
    ended_at: list[float] = []

    async def one(index: int, prompt: list[int]) -> None:
        draw = random.Random(f"{seed}-{index}")
        while time.perf_counter() - started < STEADY_AFTER_S + WINDOW_S:
            # Of one length they would end together, and a window would hold one batch more or less.
            length = draw.randint(max(1, max_tokens // 2), max_tokens + max_tokens // 2)
            request = inference_pb2.GenerateRequest()
            request.spec.tokens.ids.extend(prompt)
            request.spec.sampling.max_tokens = length
            request.spec.sampling.ignore_eos = True
            request.spec.sampling.temperature = 0.0
            last = b""
            async for message in generate(request, timeout=CALL_TIMEOUT_S):
                last = message
            if inference_pb2.GenerateResponse.FromString(last).finished.usage.completion_tokens != length:
                raise RuntimeError("a request did not finish")
            ended_at.append(time.perf_counter() - started)

    await asyncio.gather(*(one(index, prompt) for index, prompt in enumerate(workload.prompts())))
    return ended_at


async def _scrape(pages: Sequence[str]) -> None:
    while pages:
        await asyncio.gather(*map(_fetch, pages))
        await asyncio.sleep(SCRAPE_EVERY_S)


async def _delivered(pages: Sequence[str]) -> None:
    """Until no more spans leave, so that the other arm has the machine to itself."""
    counts: list[tuple[float, ...]] = []
    async with asyncio.timeout(DELIVERED_WITHIN_S):
        while pages and (len(counts) < 2 or counts[-1] != counts[-2]):
            await asyncio.sleep(POLL_S)
            fetched = await asyncio.gather(*map(_fetch, pages))
            counts.append(tuple(number for page in fetched for number in _spans(page)))


def _spans(page: str) -> tuple[float, ...]:
    """Exported first, then what was dropped, by reason."""
    found = dict(SPANS.findall(page))
    return (float(found.pop("exported")), *map(float, found.values()))


async def _fetch(url: str) -> str:
    return await asyncio.to_thread(_read, url)


def _read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        body: bytes = answer.read()
    return body.decode()


def upper_bound(costs: Sequence[float]) -> float:
    """95 % bound of the median over the pairs, by resampling them."""
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(costs, k=len(costs))) for _ in range(RESAMPLES))
    return medians[round(CONFIDENCE * RESAMPLES) - 1]


def _rows(max_tokens: int, off: list[Turn], on: list[Turn], dropped: float) -> list[Row]:
    pairs = list(zip(on, off, strict=True))
    rates = [one.requests_per_s / other.requests_per_s for one, other in pairs]
    per_s = [statistics.median(turn.requests_per_s for turn in arm) for arm in (on, off)]
    figures = {
        "requests/s": (
            rates,
            [1 - rate for rate in rates],
            f"{per_s[0]:,.0f} of {per_s[1]:,.0f} requests/s, {len(pairs)} pairs, {dropped:g} spans dropped",
        )
    }
    parts: dict[str, Callable[[Turn], float]] = {
        "CPU of the scheduler": lambda turn: turn.scheduler,
        "CPU of the executor": lambda turn: turn.executor,
        "CPU of both": lambda turn: turn.scheduler + turn.executor,
    }
    for case, part in parts.items():
        ratios = [part(one) / part(other) for one, other in pairs]
        cpu_s = [statistics.median(map(part, arm)) for arm in (on, off)]
        note = f"{cpu_s[0]:.2f} after {cpu_s[1]:.2f} CPU s per 1,000 requests"
        figures[case] = (ratios, [ratio - 1 for ratio in ratios], note)
    return [
        Row(
            benchmark=f"telemetry, {max_tokens} tokens",
            case=case,
            unit="of off",
            target="cost <= 5%" if case == "requests/s" else "",
            note=f"cost at most {upper_bound(costs):.1%} (95 %); {note}",
            **spread(ratios),
        )
        for case, (ratios, costs, note) in figures.items()
    ]
