"""How long to wait between tries."""

from __future__ import annotations

import random


class Backoff:
    """Pauses between tries, which double from ``first_s`` to ``most_s`` seconds.

    Each pause is drawn between half of that and the whole.  The first try after a success comes within ``first_s``: a
    scheduler gives a broken stream a short grace.
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
        """Return the seconds to wait now."""
        delay = self._next_s * self._source.uniform(0.5, 1.0)
        self._next_s = min(self._next_s * 2, self._most_s)
        return delay
