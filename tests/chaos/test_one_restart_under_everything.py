"""One kill -9 and restart of the scheduler under requests of every kind at once: all end right, and each ran once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sage_client import AsyncClient, PairState
from tests.chaos.first_answer import first_answer_s
from tests.chaos.gaps import Gaps, Spread
from tests.chaos.mixed_requests import MixedRequests, Sizes
from tests.chaos.test_restarts_under_load import LEGS, SPLITTING, all_is_free
from tests.support.eventually import eventually
from tests.support.fleet_processes import FleetProcesses
from tests.support.free_port import free_port

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

FULL = Sizes(sdk=64, raw=64, queued=64, split=16, detached=32)
SMALL = Sizes(sdk=8, raw=8, queued=8, split=4, detached=6)
NAMES = ("a", "b")


@pytest.fixture
def sizes() -> Sizes:
    """``make chaos`` asks for the full size by ``SAGE_CHAOS_FULL=1``."""
    return FULL if os.environ.get("SAGE_CHAOS_FULL") else SMALL


async def test_every_request_ends_right_and_ran_once(
    logs: Path, simulated: list[str], tmp_path: Path, seed: int, sizes: Sizes
) -> None:
    flags = ["--state-dir", str(tmp_path / "state"), "--policy", "fifo", *SPLITTING]
    engine = (f"--engine.simulated.max-running={sizes.running // len(NAMES)}", "--engine.simulated.step-base-s=0.05")
    async with (
        FleetProcesses(logs, flags, listen=f"127.0.0.1:{free_port()}") as fleet,
        fleet.client() as client,
    ):
        for name in NAMES:
            fleet.launch(name, [*simulated, *LEGS, *engine])
        await fleet.ready(*NAMES)
        await eventually(lambda: all_hand_over(client), within_s=30.0, what="pairs that hand over", every_s=0.1)
        requests = MixedRequests(fleet.address, client, sizes, seed)
        await requests.begin()
        requests.struck("kill", asyncio.get_running_loop().time())
        fleet.scheduler.kill()
        await fleet.scheduler.ended()
        fleet.scheduler.start()
        serving_s = await first_answer_s(fleet.address)
        right = await requests.end()
        queued = right.pop("queued")
        assert right == {kind: getattr(sizes, kind) for kind in right}
        assert sizes.queued <= await requests.returned() <= queued
        print(f"\nIt answered {serving_s:.2f} s after its start.\n")
        print("\n".join(table(right | {"queued": queued}, requests.gaps)))
        await all_is_free(fleet, client, NAMES)


async def all_hand_over(client: AsyncClient) -> bool:
    pairs = (await client.get_prefill_decode()).pairs
    return len(pairs) == len(NAMES) and all(each.state is PairState.USABLE for each in pairs)


def table(right: dict[str, int], gaps: dict[str, Gaps]) -> Iterator[str]:
    """Yield the lines of a page about one run."""
    yield "| requests | right | gap of the streams over the restart |"
    yield "|---|---|---|"
    for kind, count in right.items():
        yield f"| {kind} | {count} of {count} | {Spread.of(gaps[kind].over_faults().get('kill', ()))} |"
