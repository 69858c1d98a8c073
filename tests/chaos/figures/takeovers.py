"""kill -9 and SIGSTOP of the leader with a standby: how long until the next one makes a decision."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

from sage_client import Scheduled
from tests.chaos.gaps import Spread
from tests.chaos.mixed_requests import MixedRequests, Sizes
from tests.support.postgres import running_postgres
from tests.support.service_process import ServiceProcess
from tests.support.simulated_executor import simulated_executor
from tests.support.standby_fleet import LEASE_S, StandbyFleet

TIMES = 10  # of each kind
SIZES = Sizes(sdk=8, tokens=160)
NAMES = ("a", "b")
STEP_S = 0.05
KINDS = {"kill": "kill -9", "freeze": "SIGSTOP"}


async def measure(folder: Path) -> Iterator[str]:
    """Take the leader away, ``TIMES`` times in each way; return the lines of a table."""
    rows: list[str] = []
    executor = simulated_executor(step_s=STEP_S, max_running=2 * SIZES.sdk)
    with running_postgres() as postgres:
        async with StandbyFleet(folder, postgres.url, ("--policy", "fifo")) as fleet:
            for name in NAMES:
                fleet.launch(name, executor)
            await fleet.ready(*NAMES)
            for kind, words in KINDS.items():
                decided, gaps = await _take_away(fleet, kind)
                rows.append(
                    f"| {words} of the leader, {TIMES} times: to the first new decision | {Spread.of(decided)} |"
                )
                rows.append(f"| the same: gap of {SIZES.sdk} streams of the SDK | {Spread.of(gaps)} |")
    return iter((f"| a leader with a standby, lease {LEASE_S:g} s | |", "|---|---|", *rows))


async def _take_away(fleet: StandbyFleet, kind: str) -> tuple[list[float], list[float]]:
    """Return the seconds to the first new decisions, and the gaps of streams."""
    decided: list[float] = []
    gaps: list[float] = []
    async with fleet.client() as client:
        for number in range(TIMES):
            requests = MixedRequests(fleet.address, client, SIZES, seed=number + TIMES * list(KINDS).index(kind))
            await requests.begin()
            leader = await fleet.leader()
            loop = asyncio.get_running_loop()
            began = loop.time()
            requests.struck(kind, began)
            getattr(leader, kind)()
            await _decision(fleet)
            decided.append(loop.time() - began)
            await requests.end()
            gaps += requests.gaps["sdk"].over_faults()[kind]
            await _bring_back(leader, kind)
    return decided, gaps


async def _decision(fleet: StandbyFleet) -> None:
    """Wait until a scheduler places the request of a client that comes only now."""
    async with fleet.client() as newcomer:
        async for event in newcomer.generate("And then?", max_tokens=1, ignore_eos=True):
            if isinstance(event, Scheduled):
                return


async def _bring_back(leader: ServiceProcess, kind: str) -> None:
    if kind == "kill":
        await leader.ended()
        leader.start()
    else:
        leader.thaw()
    await leader.said("stands by")
