"""A flag that wakes the dispatcher, and a wait for the scheduling pass that follows."""

from __future__ import annotations

import asyncio


class Wakeup:
    """Wakes the dispatcher.  Any number of calls of ``notify`` before its turn make one scheduling pass."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._answered = asyncio.Event()
        self._closed = False

    def notify(self) -> None:
        """Wake the dispatcher: something may be schedulable."""
        self._event.set()

    @property
    def due(self) -> bool:
        """Whether a pass was asked for and is not over."""
        return self._event.is_set() and not self._closed

    async def wait(self) -> None:
        """Wait for the next ``notify``, then forget it."""
        await self._event.wait()
        self._event.clear()

    def answer(self) -> None:
        """Report that a pass is over: what it decided is in the outboxes of the executors' streams."""
        self._answered.set()
        self._answered = asyncio.Event()

    async def answered(self) -> None:
        """Wait for the pass that the latest ``notify`` asked for; return at once where none is due.

        The wait is bounded by that one pass, which the dispatcher makes as soon as it gets its turn.  The event loop
        resumes tasks in the order in which they were woken, so a stream that waits for messages writes what the
        pass decided before the caller of this method goes on.
        """
        if self.due:
            await self._answered.wait()

    def close(self) -> None:
        """Let everybody go on who waits for a pass: the dispatcher has ended, and there will be none."""
        self._closed = True
        self._answered.set()
