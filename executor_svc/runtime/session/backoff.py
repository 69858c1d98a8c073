"""The pauses between attempts to connect."""

from __future__ import annotations

import random


class Backoff:
    """Pauses between attempts to connect, which double from ``first_s`` to ``most_s`` seconds.

    Each pause is drawn at random between half of its value and the whole.  After a success the first pause is at most
    ``first_s``, because a scheduler waits only briefly before it moves the attempts of a broken stream elsewhere.
    """

    def __init__(self, *, first_s: float = 0.05, most_s: float = 5.0, source: random.Random | None = None) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._source = source or random.Random()
        self._next_s = first_s

    def reset(self) -> None:
        """Start over with the shortest pause."""
        self._next_s = self._first_s

    def next(self) -> float:
        """Return the next pause, in seconds."""
        delay = self._next_s * self._source.uniform(0.5, 1.0)
        self._next_s = min(self._next_s * 2, self._most_s)
        return delay
