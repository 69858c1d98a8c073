"""Virtual time: things that happen, in order."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any


class EventQueue:
    """Calls functions at their times; those of one time in the order in which they were entered."""

    def __init__(self) -> None:
        self.now = 0.0  # seconds
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._entered = 0

    def at(self, when: float, call: Callable[..., None], *arguments: Any) -> None:
        """Have ``call(*arguments)`` happen at a time that is not before now."""
        self._entered += 1
        heapq.heappush(self._events, (when, self._entered, call, arguments))

    def after(self, delay_s: float, call: Callable[..., None], *arguments: Any) -> None:
        """Have ``call(*arguments)`` happen after a delay."""
        self.at(self.now + delay_s, call, *arguments)

    def play_next(self) -> bool:
        """Move to the next time and play everything that happens then.  False if nothing happens any more."""
        events = self._events
        if not events:
            return False
        self.now = events[0][0]
        while events and events[0][0] == self.now:
            _, _, call, arguments = heapq.heappop(events)
            call(*arguments)
        return True

    def play_until(self, when: float) -> None:
        """Play everything that happens up to and at a time."""
        while self._events and self._events[0][0] <= when:
            self.play_next()
