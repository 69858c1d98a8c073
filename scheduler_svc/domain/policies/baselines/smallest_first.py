"""Orders by a size: the smaller goes first, and no request starves."""

from __future__ import annotations

from collections.abc import Callable

from scheduler_svc.domain.waiting_request import WaitingRequest

#: Seconds by which the largest request is held back: what arrives later than that goes behind it.
MAX_DELAY_S = 600.0


class SmallestFirst:
    """Orders by size.

    Key: arrival + ``MAX_DELAY_S`` x size / (size + half), which grows with the size and stays bounded; a request of
    size ``half`` is held back by half of ``MAX_DELAY_S``.  So among requests that came within seconds of each other the
    size alone decides, and nothing starves.
    """

    max_delay_s = MAX_DELAY_S
    by_class = False  # tenants share out all classes together

    def __init__(self, size: Callable[[WaitingRequest], float], *, half: float, words: str) -> None:
        """``size``: of a request, at least 0.  ``half``: a usual size.  ``words``: a format for it, "{:.0f} tokens"."""
        self._size = size
        self._half = half
        self._words = words

    def key(self, waiting: WaitingRequest, now: float) -> float:
        """Return arrival + a delay by size."""
        size = self._size(waiting)
        return waiting.request.arrived_at + MAX_DELAY_S * size / (size + self._half)

    def revise(self, waiting: WaitingRequest, now: float) -> float | None:
        """Return None: a key never changes."""
        return None

    def describe(self, waiting: WaitingRequest, now: float) -> str:
        """Say what the request is ordered by."""
        return self._words.format(self._size(waiting))
