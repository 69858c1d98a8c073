"""What telemetry costs: requests per second at saturation with everything on, over those with everything off.

Two control planes of the same build are up throughout and take turns, in an order that alternates.  On: every request
traced unless said otherwise, spans and metrics pushed to an OTLP receiver in a process of its own, both metrics pages
scraped as often as the stack in docker/ does.  Requests are counted while the load is steady, so that what telemetry
puts off is paid for by what it put off before; CPU seconds are counted until the last spans have had their time to
leave.  Metrics are pushed every 15 s, so not in every window.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import statistics
import urllib.request
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass

import grpc

from tests.bench.affinity import kept_off
from tests.bench.child import child
from tests.bench.control_plane import ControlPlane, control_plane
from tests.bench.engines import Engine
from tests.bench.report import Row
from tests.bench.rounds import spread
from tests.bench.telemetry_sink import READY
from tests.bench.windowed_load import Window, WindowedLoad
from tests.bench.workload import Workload
from tests.support.free_port import free_ports

STREAMS = 32
PROMPT_TOKENS = 32
WINDOW = Window(after_s=1.2, for_s=5.0)  # after: longer than spans wait for each other
SETTLE_S = 1.3  # after the load: the same
POLL_S = 0.2
SCRAPE_EVERY_S = 5.0  # as docker/prometheus/prometheus.yml has it
DELIVERED_WITHIN_S = 20.0
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


async def measure(engine: Engine, case: str, *, rounds: int, max_tokens: int, sampling_ratio: float = 1.0) -> list[Row]:
    off: list[Turn] = []
    on: list[Turn] = []
    async with _silent(engine) as silent, _observed(engine, sampling_ratio) as observed:
        pids = [os.getpid(), *silent.plane.pids, *observed.plane.pids]
        with nullcontext() if engine.bound_to is None else kept_off(engine.bound_to, pids):
            for number in range(rounds + 1):  # the first warms up
                order = ((silent, off), (observed, on)) if number % 2 else ((observed, on), (silent, off))
                workload = Workload(streams=STREAMS, prompt_tokens=PROMPT_TOKENS, max_tokens=max_tokens, seed=number)
                for arm, turns in order:
                    turns.append(await _turn(arm, workload))
                    await asyncio.sleep(engine.settle_s)
        fetched = await asyncio.gather(*map(_fetch, observed.pages))
    dropped = sum(count for page in fetched for count in _spans(page)[1:])
    return _rows(f"telemetry, {case}, {max_tokens} tokens", off[1:], on[1:], dropped)


@asynccontextmanager
async def _silent(engine: Engine) -> AsyncIterator[Arm]:
    async with control_plane(engine) as plane, grpc.aio.insecure_channel(plane.address) as channel:
        yield Arm(plane=plane, channel=channel)


@asynccontextmanager
async def _observed(engine: Engine, sampling_ratio: float) -> AsyncIterator[Arm]:
    ports = free_ports(2)
    async with child("telemetry-sink", "tests.bench.telemetry_sink") as sink:
        port = (await sink.wait_for(READY, START_TIMEOUT_S)).removeprefix(READY)
        scheduler, executor = (
            (
                f"--telemetry.otlp-endpoint=http://127.0.0.1:{port}",
                f"--telemetry.sampling-ratio={sampling_ratio}",
                f"--telemetry.metrics-listen=127.0.0.1:{page}",
            )
            for page in ports
        )
        async with (
            control_plane(engine, scheduler_flags=scheduler, executor_flags=executor) as plane,
            grpc.aio.insecure_channel(plane.address) as channel,
        ):
            pages = tuple(f"http://127.0.0.1:{page}/metrics" for page in ports)
            yield Arm(plane=plane, channel=channel, pages=pages)


async def _turn(arm: Arm, workload: Workload) -> Turn:
    processes = (arm.plane.scheduler, arm.plane.executor)
    before = [process.cpu_s() for process in processes]
    scraping = asyncio.create_task(_scrape(arm.pages))
    served = await WindowedLoad(arm.channel, workload, WINDOW).run()
    scraping.cancel()
    with suppress(asyncio.CancelledError):
        await scraping  # had a page not been served, it would say so
    await asyncio.sleep(SETTLE_S)  # in either arm, as idling costs something as well
    scheduler, executor = (
        (process.cpu_s() - start) / served.requests * 1_000 for process, start in zip(processes, before, strict=True)
    )
    await _delivered(arm.pages)
    return Turn(requests_per_s=served.per_s, scheduler=scheduler, executor=executor)


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


def _rows(benchmark: str, off: list[Turn], on: list[Turn], dropped: float) -> list[Row]:
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
            benchmark=benchmark,
            case=case,
            unit="of off",
            target="cost <= 5%" if case == "requests/s" else "",
            note=f"cost at most {upper_bound(costs):.1%} (95 %); {note}",
            **spread(ratios),
        )
        for case, (ratios, costs, note) in figures.items()
    ]
