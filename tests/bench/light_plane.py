"""A scheduler in a process of its own over executors that cost next to nothing: all of its CPU time is its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.bench.child import Child, child
from tests.bench.control_plane import START_TIMEOUT_S, port_in
from tests.bench.light_executors import light_executors


@dataclass(frozen=True, kw_only=True, slots=True)
class LightPlane:
    address: str  # of the scheduler, host:port
    scheduler: Child
    sources: Child


@asynccontextmanager
async def light_plane(
    *, executors: int, step_s: float, scheduler_flags: Sequence[str] = (), ready: str = ""
) -> AsyncIterator[LightPlane]:
    """Up, with every executor READY.  ``ready``: what the scheduler says after it serves, and before it takes them."""
    async with child("scheduler", "scheduler_svc", "--listen", "127.0.0.1:0", *scheduler_flags) as scheduler:
        address = f"127.0.0.1:{port_in(await scheduler.wait_for('serving on', START_TIMEOUT_S))}"
        if ready:
            await scheduler.wait_for(ready, START_TIMEOUT_S)
        async with light_executors(address, executors=executors, step_s=step_s) as sources:
            yield LightPlane(address=address, scheduler=scheduler, sources=sources)
