"""One bit that says: there may be something to schedule."""

from __future__ import annotations

import asyncio


class Wakeup:
    """Any number of ``kick`` before the dispatcher gets its turn make one pass."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def kick(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        """Until kicked; clears the bit."""
        await self._event.wait()
        self._event.clear()
