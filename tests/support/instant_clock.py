"""A clock on which every wait is over at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class InstantClock:
    """Implements ``sage_common.clock.Clock``; it is always 0.

    ``turns``: of the event loop, that others get while somebody sleeps.
    """

    def __init__(self, turns: int = 1) -> None:
        self._turns = turns

    def now(self) -> float:
        return 0.0

    def call_at(self, when: float, callback: Callable[[], None]) -> asyncio.Handle:
        return asyncio.get_running_loop().call_soon(callback)

    async def sleep(self, seconds: float) -> None:
        for _ in range(self._turns):
            await asyncio.sleep(0)
