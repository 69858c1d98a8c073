"""So many requests at any time, each worker one after another, until the load ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from types import TracebackType
from typing import Self


class SteadyLoad:
    """Runs as long as its block, and then until its requests have ended; drops them if the block fails."""

    def __init__(self, ask: Callable[[int], Awaitable[object]], numbers: Iterator[int], at_once: int) -> None:
        """``ask`` makes one request of a number, and raises what is wrong with its answer."""
        self._ask = ask
        self._numbers = numbers
        self._at_once = at_once
        self._over = False
        self._workers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._workers = [asyncio.create_task(self._work()) for _ in range(self._at_once)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over = True
        try:
            if error is None:
                await asyncio.gather(*self._workers)
        finally:
            for each in self._workers:
                each.cancel()

    async def _work(self) -> None:
        while not self._over:
            await self._ask(next(self._numbers))

    def fail_early(self) -> None:
        """Raise what is wrong already."""
        for each in self._workers:
            if each.done() and not each.cancelled():
                each.result()
