"""kill -9 of the scheduler under streams of the SDK: the largest gap of each beside the time that a start takes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

from tests.chaos.first_answer import first_answer_s
from tests.chaos.gaps import Spread
from tests.chaos.mixed_requests import MixedRequests, Sizes
from tests.support.fleet_processes import FleetProcesses
from tests.support.free_port import free_port
from tests.support.simulated_executor import simulated_executor

RUNS = 10
NICENESS = 10
SIZES = Sizes(sdk=64, tokens=160)
NAMES = ("a", "b")
STEP_S = 0.05


async def measure(folder: Path) -> Iterator[str]:
    """Kill and start the scheduler, niced, ``RUNS`` times; return the lines of a table."""
    serving: list[float] = []
    gaps: list[float] = []
    beyond: list[float] = []
    flags = ["--state-dir", str(folder / "state"), "--policy", "fifo"]
    executor = simulated_executor(step_s=STEP_S, max_running=SIZES.sdk)
    async with FleetProcesses(folder, flags, listen=f"127.0.0.1:{free_port()}") as fleet, fleet.client() as client:
        for name in NAMES:
            fleet.launch(name, executor)
        await fleet.ready(*NAMES)
        for run in range(RUNS):
            requests = MixedRequests(fleet.address, client, SIZES, seed=run)
            await requests.begin()
            requests.struck("kill", asyncio.get_running_loop().time())
            fleet.scheduler.kill()
            await fleet.scheduler.ended()
            fleet.scheduler.start(niceness=NICENESS)
            serving.append(await first_answer_s(fleet.address))
            await requests.end()
            found = requests.gaps["sdk"].over_faults()["kill"]
            gaps += found
            beyond += [each - serving[-1] for each in found]
            await fleet.ready(*NAMES)
    return _lines(serving, gaps, beyond)


def _lines(serving: list[float], gaps: list[float], beyond: list[float]) -> Iterator[str]:
    what = f"{RUNS} times under {SIZES.sdk} streams of the SDK, restarted with nice {NICENESS}"
    yield f"| kill -9 of the scheduler, {what} | |"
    yield "|---|---|"
    yield f"| from the start of the new process to its first answer | {Spread.of(serving)} |"
    yield f"| largest gap of a stream | {Spread.of(gaps)} |"
    yield f"| the gap less that run's time to the first answer | {Spread.of(beyond)} |"
