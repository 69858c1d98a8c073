"""One bit that says that there may be something to schedule."""

from __future__ import annotations

import asyncio


class Wakeup:
    """Wakes the dispatcher.  Any number of calls of ``notify`` before its turn make one scheduling pass."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        """Wake the dispatcher: something may be schedulable."""
        self._event.set()

    async def wait(self) -> None:
        """Wait for the next ``notify``, then forget it."""
        await self._event.wait()
        self._event.clear()
