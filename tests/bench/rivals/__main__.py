"""``python -m tests.bench.rivals``: other routers from PyPI beside this control plane, on workers of one beat.

They stream text over HTTP and we stream tokens over gRPC, so the figures are of what each does for its users, not of
equal work.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Protocol

from tests.bench.report import Row
from tests.bench.rivals.ours import ours
from tests.bench.rivals.routers import COMMANDS, install, router
from tests.bench.rivals.stream_end import StreamEnd
from tests.bench.rounds import spread
from tests.bench.session import run

WORKERS = 2
STEP_S = 0.025
OURS = "ours"


class System(Protocol):
    """What routes requests to workers."""

    def cpu_s(self) -> float: ...

    async def run(self, streams: int, tokens: int) -> list[StreamEnd]: ...

    def kill_worker(self) -> None: ...


Start = Callable[[], AbstractAsyncContextManager[System]]


async def measure(*, streams: int, tokens: int, rounds: int) -> list[Row]:
    """Measure every system in turn, round by round of its own."""
    install()
    starts: dict[str, Start] = {OURS: partial(ours, workers=WORKERS, step_s=STEP_S)}
    for name in COMMANDS:
        starts[name] = partial(router, name, workers=WORKERS, step_s=STEP_S)
    rows = []
    for name, start in starts.items():
        async with start() as system:
            rows += await _cost(name, system, streams, tokens, rounds)
            rows += await _killed(name, system, streams, tokens)
    return rows


async def _cost(name: str, system: System, streams: int, tokens: int, rounds: int) -> list[Row]:
    cpu, first = [], []
    for number in range(rounds + 1):  # the first warms up
        before = system.cpu_s()
        ends = await system.run(streams, tokens)
        if not all(end.whole for end in ends):
            raise RuntimeError(f"{name}: {sum(not end.whole for end in ends)} of {streams} streams lost tokens")
        if number:
            cpu.append((system.cpu_s() - before) / (streams * tokens) * 1e6)
            first.append(statistics.median(end.first_s for end in ends) * 1e3)
    benchmark = f"rivals, {streams} streams x {tokens} tokens"
    return [
        Row(benchmark=benchmark, case=f"{name}: router's CPU", unit="CPU s / 1M tokens", **spread(cpu)),
        Row(
            benchmark=benchmark,
            case=f"{name}: first token, median",
            unit="ms",
            note=f"of these a step, {STEP_S * 1e3:.0f} ms, and half a step until it begins",
            **spread(first),
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
