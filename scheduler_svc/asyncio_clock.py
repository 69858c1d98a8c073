"""The clock of the running service."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class AsyncioClock:
    """Implements control's ControlClock with the loop's monotonic time, in seconds."""

    def now(self) -> float:
        return time.monotonic()

    def call_at(self, when: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        loop = asyncio.get_running_loop()
        return loop.call_later(max(0.0, when - self.now()), callback)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
