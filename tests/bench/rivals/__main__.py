"""``python -m tests.bench.rivals``: other routers from PyPI beside this control plane, on workers of one beat.

They stream text over HTTP and pass on what their workers wrote.  We stream tokens over gRPC or, where vLLM is
installed, text over HTTP from the OpenAI gateway, whose figures hold the scheduler's.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from importlib.util import find_spec
from typing import Protocol

from tests.bench.report import Row
from tests.bench.rivals.ours import ours, ours_over_http
from tests.bench.rivals.routers import COMMANDS, install, router
from tests.bench.rivals.stream_end import StreamEnd
from tests.bench.rounds import spread
from tests.bench.session import run

WORKERS = 2
STEP_S = 0.025
OURS = "ours"
OVER_HTTP = "ours, OpenAI gateway"


class System(Protocol):
    """What routes requests to workers."""

    def cpu_s(self) -> float: ...

    async def run(self, streams: int, tokens: int) -> list[StreamEnd]: ...

    def kill_worker(self) -> None: ...


Start = Callable[[], AbstractAsyncContextManager[System]]


async def measure(*, streams: int, tokens: int, rounds: int) -> list[Row]:
    """Measure every system in turn, round by round; then kill a worker of each."""
    install()
    starts: dict[str, Start] = {OURS: partial(ours, workers=WORKERS, step_s=STEP_S)}
    if find_spec("vllm") is not None:
        starts[OVER_HTTP] = partial(ours_over_http, workers=WORKERS, step_s=STEP_S)
    for name in COMMANDS:
        starts[name] = partial(router, name, workers=WORKERS, step_s=STEP_S)
    async with AsyncExitStack() as stack:
        systems = {name: await stack.enter_async_context(start()) for name, start in starts.items()}
        turns: dict[str, list[tuple[float, float]]] = {name: [] for name in systems}
        for _ in range(rounds + 1):  # the first warms up
            for name, system in systems.items():
                turns[name].append(await _turn(name, system, streams, tokens))
        rows = [row for name in systems for row in _rows(name, turns[name][1:], streams, tokens)]
        for name, system in systems.items():
            rows += await _killed(name, system, streams, tokens)
    return rows


async def _turn(name: str, system: System, streams: int, tokens: int) -> tuple[float, float]:
    """Return the CPU seconds of one load and the median of its streams' seconds to the first token."""
    before = system.cpu_s()
    ends = await system.run(streams, tokens)
    if not all(end.whole for end in ends):
        raise RuntimeError(f"{name}: {sum(not end.whole for end in ends)} of {streams} streams lost tokens")
    return system.cpu_s() - before, statistics.median(end.first_s for end in ends)


def _rows(name: str, turns: list[tuple[float, float]], streams: int, tokens: int) -> list[Row]:
    benchmark = f"rivals, {streams} streams x {tokens} tokens"
    what = "gateway's and scheduler's CPU" if name == OVER_HTTP else "router's CPU"
    return [
        Row(
            benchmark=benchmark,
            case=f"{name}: {what}",
            unit="CPU s / 1M tokens",
            **spread([cpu_s / (streams * tokens) * 1e6 for cpu_s, _ in turns]),
        ),
        Row(
            benchmark=benchmark,
            case=f"{name}: first token, median",
            unit="ms",
            note=f"of these a step, {STEP_S * 1e3:.0f} ms, and half a step until it begins",
            **spread([first_s * 1e3 for _, first_s in turns]),
        ),
    ]


async def _killed(name: str, system: System, streams: int, tokens: int) -> list[Row]:
    running = asyncio.create_task(system.run(streams, tokens))
    await asyncio.sleep(tokens * STEP_S / 3)
    system.kill_worker()
    ends = await running
    whole = sum(end.whole for end in ends)
    said = sum(end.said_why for end in ends)
    longest = max((end.longest_gap_s for end in ends if end.whole), default=0.0)
    return [
        Row(
            benchmark="rivals, a worker is killed",
            case=f"{name}: streams that end whole",
            unit=f"of {streams}",
            note=f"{said} of the others were told why; longest gap of a whole one {longest:.2f} s",
            **spread([float(whole)]),
        )
    ]


def main() -> int:
    """Exit status: 0 when everything was measured, whatever the figures; 1 when something could not be."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.rivals")
    parser.add_argument("--streams", type=int, default=32, help="streams at once (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=128, help="output tokens of a request (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each system (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    options = parser.parse_args()
    measured = partial(measure, streams=options.streams, tokens=options.tokens, rounds=options.rounds)
    return run({"rivals": measured}, ["rivals"], as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
