"""The port to time, and its implementation on asyncio.

Code that waits takes a ``Clock``: the services run on ``AsyncioClock``, tests and simulations on
``sage_common.virtual_clock.VirtualClock``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """A callback that waits for its moment."""

    def cancel(self) -> None:
        """Cancel the callback.  Idempotent; does nothing once the callback has run."""
        ...


class Clock(Protocol):
    """Seconds that only go forward, and waiting for them."""

    def now(self) -> float:
        """Return monotonic seconds; the zero is arbitrary."""
        ...

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Run ``callback`` on the event loop once ``now() >= when``."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait ``seconds``.  Zero or less gives other tasks one turn of the event loop."""
        ...


class AsyncioClock:
    """Implements Clock with the machine's monotonic time and the running event loop."""

    def now(self) -> float:
        """Return monotonic seconds, the same as the event loop's own ``time()``."""
        return time.monotonic()

    def call_at(self, when: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Run ``callback`` on the running loop at ``when``; in its next turn if ``when`` is past."""
        return asyncio.get_running_loop().call_later(max(0.0, when - self.now()), callback)

    async def sleep(self, seconds: float) -> None:
        """Wait ``seconds``.  Zero or less gives other tasks one turn of the event loop."""
        await asyncio.sleep(max(0.0, seconds))
