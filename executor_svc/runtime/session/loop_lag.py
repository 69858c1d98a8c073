"""Measures how late the executor's event loop runs its timers."""

from __future__ import annotations

import asyncio

from executor_svc.runtime.observer import NULL_OBSERVER, Observer

LAG_TICK_S = 0.1  # between two measurements


class LoopLag:
    """Measures the lag of the event loop: the delay of a timer that is set every LAG_TICK_S seconds."""

    def __init__(self, observer: Observer = NULL_OBSERVER) -> None:
        self._observer = observer
        self._worst_s = 0.0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to measure on the running loop."""
        self._schedule(asyncio.get_running_loop())

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due = loop.time() + LAG_TICK_S
        self._timer = loop.call_at(self._due, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        late_s = max(0.0, loop.time() - self._due)
        self._observer.lagged(late_s)
        self._worst_s = max(self._worst_s, late_s)
        self._schedule(loop)

    def take(self) -> float:
        """Return the worst lag since the last call, in seconds."""
        worst, self._worst_s = self._worst_s, 0.0
        return worst

    def stop(self) -> None:
        """Stop measuring.  Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
