"""A clock that a test moves: minutes of virtual time run in milliseconds, the same way every time."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")

SETTLE_TURNS = 20
"""Most turns of the event loop before time moves: more than any chain of tasks that wake one another needs."""


class VirtualTimer:
    """A callback that waits for its moment on a virtual clock."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback: Callable[[], None] | None = callback

    @property
    def waiting(self) -> bool:
        """Whether the callback has neither run nor been cancelled."""
        return self._callback is not None

    def cancel(self) -> None:
        """Cancel the callback.  Idempotent; does nothing once the callback has run."""
        self._callback = None

    def fire(self) -> None:
        """Run the callback, unless it has run or was cancelled."""
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class VirtualClock:
    """Implements ``sage_common.clock.Clock``."""

    def __init__(self, start: float = 0.0) -> None:
        self._now = start
        self._timers: list[tuple[float, int, VirtualTimer]] = []
        self._order = itertools.count()
        self._giving_turns = 0  # tasks in ``sleep(0)``: they go on without time moving

    def now(self) -> float:
        """Return the virtual time, in seconds."""
        return self._now

    def call_at(self, when: float, callback: Callable[[], None]) -> VirtualTimer:
        """Run ``callback`` when time reaches ``when``; callbacks of one moment run in the order of the calls."""
        timer = VirtualTimer(callback)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    async def sleep(self, seconds: float) -> None:
        """Wait until ``seconds`` of virtual time passed.  Zero or less gives other tasks one turn of the event loop."""
        if seconds <= 0:
            self._giving_turns += 1
            try:
                await asyncio.sleep(0)
            finally:
                self._giving_turns -= 1
            return
        woken = asyncio.get_running_loop().create_future()
        timer = self.call_at(self._now + seconds, lambda: None if woken.done() else woken.set_result(None))
        try:
            await woken
        finally:
            timer.cancel()

    async def step(self) -> bool:
        """Move to the next timer, run it and let tasks settle; False if no timer waits."""
        await self.settle()
        if self._next_at() is None:
            return False
        await self._fire_next()
        return True

    async def advance(self, seconds: float) -> None:
        """Move time forward, running every timer at its own moment and letting tasks settle after each."""
        end = self._now + seconds
        await self.settle()
        while (at := self._next_at()) is not None and at <= end:
            await self._fire_next()
        self._now = end
        await self.settle()

    async def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Move from timer to timer until ``work`` is done, and return its result.

        Raises:
            AssertionError: no timer waits and ``work`` is not done, so in real time it would hang for ever.
        """
        task = asyncio.ensure_future(work)
        while not task.done():
            if not await self.step() and not self._giving_turns and not task.done():
                task.cancel()
                raise AssertionError("every task waits and no timer is set: in real time this would hang for ever")
        return task.result()

    @staticmethod
    async def settle(turns: int = SETTLE_TURNS) -> None:
        """Let every task run that can run now, for at most ``turns`` turns of the event loop."""
        ready = getattr(asyncio.get_running_loop(), "_ready", None)  # asyncio's own loops have no public name for it
        for _ in range(turns):
            await asyncio.sleep(0)
            if ready is not None and not ready:  # nothing runs after this task, in this turn or the next
                return

    def _next_at(self) -> float | None:
        while self._timers and not self._timers[0][2].waiting:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    async def _fire_next(self) -> None:
        when, _, timer = heapq.heappop(self._timers)
        self._now = max(self._now, when)
        timer.fire()
        await self.settle()
