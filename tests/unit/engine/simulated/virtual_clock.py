"""A clock for the simulated engine: it stands still while anything can happen, then jumps to the next sleeper."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")
_SETTLED_AFTER = 20  # turns of the loop without news: longer than any chain of callbacks in these tests


class VirtualClock:
    def __init__(self) -> None:
        self.time = 0.0  # seconds
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.time + max(0.0, seconds), next(self._numbers), woken))
        await woken

    async def settle(self) -> None:
        """Let everything run that does not wait for time."""
        for _ in range(_SETTLED_AFTER):
            await asyncio.sleep(0)

    async def step(self) -> bool:
        """Jump to the next sleeper; False when nobody sleeps."""
        await self.settle()
        while self._sleepers:
            at, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                self.time = max(self.time, at)
                woken.set_result(None)
                await self.settle()
                return True
        return False

    async def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        await self.settle()
        end = self.time + seconds
        while self._sleepers and self._sleepers[0][0] <= end:
            await self.step()
        self.time = end
        await self.settle()

    async def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Let time pass until ``work`` is done.  Fails when it never will be."""
        task = asyncio.ensure_future(work)
        while not task.done():
            if not await self.step() and not task.done():
                task.cancel()
                raise AssertionError("everything waits and nobody sleeps: this would hang for ever")
        return task.result()
