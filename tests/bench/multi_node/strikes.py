"""Kills a part of the engine over two machines under load, and waits until it is back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil

from sage_client import Completion, InstanceState
from tests.bench.multi_node.answers import answers, begun, compared
from tests.bench.multi_node.devices import FIRST, ONE, SECOND, WIDE
from tests.bench.multi_node.fleet_on_machines import FleetOnMachines
from tests.support.eventually import eventually

BACK_WITHIN_S = 150.0
ORPHAN_WITHIN_S = 20.0
INSTANCES = (f"{WIDE}-1", f"{ONE}-1")
STREAMS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Struck:
    """What a strike did."""

    streams: str  # how many answers are as undisturbed
    moved: int  # streams that went on elsewhere
    back_s: float  # from the strike until the engine is READY again
    again: str  # its answers then
    orphans: str  # what became of workers that had no engine any more


async def strike(
    fleet: FleetOnMachines, wanted: Sequence[Completion], kill: Callable[[], None], restore: Callable[[], None]
) -> Struck:
    """Kill under load; ``restore`` what the engine needs to come back.  Raises AssertionError if it does not."""
    tokens = fleet.devices.tokens
    executors, workers = fleet.executors(FIRST), fleet.workers(FIRST) | fleet.workers(SECOND)
    streams = await begun(fleet.client, INSTANCES, STREAMS, tokens)
    struck_at = time.monotonic()
    await asyncio.to_thread(kill)
    done = await asyncio.gather(*(stream.complete() for stream in streams))
    orphans = await _gone(workers)
    await asyncio.to_thread(restore)

    async def back() -> bool:
        new = fleet.executors(FIRST) - executors
        return bool(new) and await fleet.state(INSTANCES[0]) is InstanceState.READY

    await eventually(back, within_s=BACK_WITHIN_S, what=f"{INSTANCES[0]} to come back", every_s=0.25)
    back_s = time.monotonic() - struck_at
    again = await answers(fleet.client, INSTANCES[0], STREAMS, tokens)
    served = sum(each.instance_id == INSTANCES[0] for each in again)
    return Struck(
        streams=compared(done, wanted[:STREAMS]),
        moved=sum(each.attempts > 1 for each in done),
        back_s=back_s,
        again=f"{compared(again, wanted[:STREAMS])}, {served} from {INSTANCES[0]}",
        orphans=orphans,
    )


async def _gone(workers: set[psutil.Process]) -> str:
    began = time.monotonic()
    try:
        await eventually(lambda: not any(map(_runs, workers)), within_s=ORPHAN_WITHIN_S, every_s=0.25)
    except AssertionError:
        return f"{sum(map(_runs, workers))} of {len(workers)} old workers still run after {ORPHAN_WITHIN_S:g} s"
    return f"all {len(workers)} old workers gone {time.monotonic() - began:.1f} s after the streams' end"


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
