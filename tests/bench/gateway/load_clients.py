"""Several client processes, which share the streams of each load."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

from tests.bench.gateway.load_client import Load, LoadClient, load_client


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """A load that was answered whole."""

    wall_s: float
    firsts: Sequence[float]  # seconds to each stream's first chunk
    busiest: float  # share of a core that the busiest client used: near 1, the clients are what was measured


class LoadClients:
    """The benchmark's side of them."""

    def __init__(self, clients: Sequence[LoadClient]) -> None:
        self._clients = clients

    @property
    def pids(self) -> list[int]:
        return [each.pid for each in self._clients]

    async def run(self, load: Load) -> Answered:
        """Run a load to its end.  Raises ChildFailed."""
        before, started = [each.cpu_s() for each in self._clients], time.perf_counter()
        firsts = await asyncio.gather(*(each.run(self._share(load, place)) for place, each in enumerate(self._clients)))
        wall_s = time.perf_counter() - started
        used = [each.cpu_s() - at_first for each, at_first in zip(self._clients, before, strict=True)]
        return Answered(wall_s=wall_s, firsts=[first for of in firsts for first in of], busiest=max(used) / wall_s)

    def _share(self, load: Load, place: int) -> Load:
        of, whole = len(self._clients), load.workload
        streams = whole.streams // of + (place < whole.streams % of)
        return replace(load, workload=replace(whole, streams=streams, seed=whole.seed * of + place))


@asynccontextmanager
async def load_clients(count: int) -> AsyncIterator[LoadClients]:
    """``count`` client processes."""
    async with AsyncExitStack() as stack:
        entered = (stack.enter_async_context(load_client()) for _ in range(count))
        yield LoadClients(await asyncio.gather(*entered))
