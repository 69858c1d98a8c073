"""The clock of a process that can be stopped and go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from sage_common.clock import Clock, Timer


class FreezableClock:
    """Implements ``Clock``.  While it is frozen time passes and nothing runs: timers and messages wait for ``thaw``."""

    def __init__(self, clock: Clock) -> None:
        self.frozen = False
        self._clock = clock
        self._waiting: list[Callable[[], object]] = []
        self._running = asyncio.Event()
        self._running.set()

    def now(self) -> float:
        """Return seconds, which pass also while it is frozen."""
        return self._clock.now()

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Run ``callback`` once ``now() >= when`` and the process runs."""
        return self._clock.call_at(when, partial(self.run, callback))

    async def sleep(self, seconds: float) -> None:
        """Wait ``seconds``, and until the process runs."""
        await self._clock.sleep(seconds)
        await self.runs()

    async def runs(self) -> None:
        """Wait until the process runs."""
        await self._running.wait()

    def run(self, callback: Callable[[], object]) -> None:
        """Run ``callback`` now, or when the process goes on."""
        if self.frozen:
            self._waiting.append(callback)
        else:
            callback()

    def freeze(self) -> None:
        """Stop the process."""
        self.frozen = True
        self._running.clear()

    def thaw(self) -> None:
        """Let it go on: first with what waited, in its order."""
        self.frozen = False
        self._running.set()
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each()
