"""kill -9 of the executor that runs greedy streams, nothing else happening: their largest gaps."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

from executor_svc.runtime.engine_port import Sampling
from sage_client import AsyncClient
from tests.chaos.gaps import Gaps, Spread
from tests.chaos.mixed_requests import MixedRequest
from tests.support.eventually import eventually
from tests.support.fleet_processes import FleetProcesses
from tests.support.simulated_executor import simulated_executor

KILLS = 20
STREAMS = 16
TOKENS = 100
STRUCK_AFTER = 20  # tokens of each stream
NAMES = ("a", "b")
STEP_S = 0.02


async def measure(folder: Path) -> Iterator[str]:
    """Kill one executor after the other, ``KILLS`` times; return the lines of a table."""
    gaps = Gaps()
    executor = simulated_executor(step_s=STEP_S, max_running=2 * STREAMS)
    async with FleetProcesses(folder, ["--policy", "fifo"]) as fleet, fleet.client() as client:
        for name in NAMES:
            fleet.launch(name, executor)
        for kill in range(KILLS):
            await fleet.ready(*NAMES)
            victim = fleet.executors[NAMES[kill % len(NAMES)]]
            requests = [_request(kill, number, gaps) for number in range(STREAMS)]
            reading = [asyncio.create_task(_read(client, each, victim.name)) for each in requests]
            await asyncio.gather(*(_under_way(each) for each in requests))
            victim.kill()
            await asyncio.gather(*reading)
            for each in requests:
                await each.check(attempts=2)
            await victim.ended()
            victim.start()
    largest = Spread.of(gaps.largest())
    return iter(
        (
            f"| kill -9 of an executor, {KILLS} times under {STREAMS} greedy streams that it runs | |",
            "|---|---|",
            f"| largest gap of a stream | {largest} |",
        )
    )


def _request(kill: int, number: int, gaps: Gaps) -> MixedRequest:
    sampling = Sampling(temperature=0.0, max_tokens=TOKENS, ignore_eos=True)
    return MixedRequest("sdk", f"{kill}-{number}", f"Kill {kill}, stream {number}:", sampling, gaps)


async def _under_way(request: MixedRequest) -> None:
    await eventually(lambda: len(request.token_ids) >= STRUCK_AFTER, within_s=30.0, what="tokens of each stream")


async def _read(client: AsyncClient, request: MixedRequest, instance_id: str) -> None:
    stream = client.generate(
        request.prompt,
        request_id=request.request_id,
        preferred_instance=instance_id,
        temperature=0.0,
        max_tokens=TOKENS,
        ignore_eos=True,
    )
    await request.read(stream)
