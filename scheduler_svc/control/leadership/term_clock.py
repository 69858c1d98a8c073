"""A clock whose timers end with the term in which they were set."""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakSet

from sage_common.clock import Clock, Timer


class _Ended:
    """A timer that never fires."""

    def cancel(self) -> None:
        """Do nothing."""


class TermClock:
    """Implements ``Clock``.  After ``end`` nothing happens any more that was to happen later.

    What a term built would otherwise go on by itself, and stay in memory as long as its longest deadline.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._timers: WeakSet[Timer] = WeakSet()
        self._over = False

    def now(self) -> float:
        """Return monotonic seconds."""
        return self._clock.now()

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Run ``callback`` once ``now() >= when``, unless the term is over by then."""
        if self._over:
            return _Ended()
        timer = self._clock.call_at(when, callback)
        self._timers.add(timer)
        return timer

    async def sleep(self, seconds: float) -> None:
        """Wait ``seconds``."""
        await self._clock.sleep(seconds)

    def end(self) -> None:
        """Cancel all timers, and set no further ones."""
        self._over = True
        for timer in list(self._timers):
            timer.cancel()
        self._timers.clear()
