"""How fast a model's queue drains, and how fast requests come that go first."""

from __future__ import annotations

from collections.abc import Iterator
from math import exp

from scheduler_svc.domain.prediction.fading_memory import FadingMemory
from scheduler_svc.domain.request import Priority

MEMORY_S = 20.0
"""Seconds over which both are averaged: what is older weighs less than 1/e."""

ENOUGH = 8.0  # placements from a queue with others waiting, before their rate counts
_FIRST_S = 1.0  # the first arrivals count as those of one second
_LEAD_FORGETS = 0.9  # each arrival's lead weighs so much of the next one's


class QueueDrain:
    """Measures placements per second while requests wait, and arrivals per second of each class.

    What an engine is full of (slots, KV cache, prompts) decides how often one is placed, so it is measured.  The time
    in which nobody waits does not count.
    """

    __slots__ = ("_arrivals", "_lead", "_memory", "_placed", "_seconds", "_since", "_waiting_since")

    def __init__(self) -> None:
        self._waiting_since: float | None = None  # of the last pass, if it left requests waiting
        self._placed = 0.0  # placements, weighted by age
        self._seconds = 0.0  # in which they were made, weighted in the same way
        self._arrivals = dict.fromkeys(Priority, 0.0)  # weighted by age
        self._lead: dict[Priority, float] = {}  # mean seconds from arrival to the ordering's key
        self._memory = FadingMemory(MEMORY_S)  # of arrivals
        self._since = float("-inf")  # of the first arrival

    def arrived(self, priority: Priority, key: float, now: float) -> None:
        """Take a new request of a class, with the key that the ordering gave it."""
        if self._since == float("-inf"):
            self._since = now
        arrivals, kept = self._arrivals, self._memory.kept(now)
        if kept < 1:
            for each in arrivals:
                arrivals[each] *= kept
        arrivals[priority] += 1
        before = self._lead.get(priority, key - now)
        self._lead[priority] = _LEAD_FORGETS * before + (1 - _LEAD_FORGETS) * (key - now)

    def reordered(self) -> None:
        """Forget keys: another ordering gives them now."""
        self._lead.clear()

    def passed(self, placed: int, waiting: int, now: float) -> None:
        """Take a scheduling pass that placed so many requests and left so many waiting for capacity."""
        if self._waiting_since is not None:
            elapsed_s = max(0.0, now - self._waiting_since)
            keep = exp(-elapsed_s / MEMORY_S)
            self._placed = self._placed * keep + placed
            self._seconds = self._seconds * keep + elapsed_s
        self._waiting_since = now if waiting else None

    def placement_s(self, now: float) -> float | None:
        """Return the mean seconds from one placement to the next while requests wait; None if too few were seen."""
        if self._placed < ENOUGH or not self._seconds:
            return None
        open_s = max(0.0, now - self._waiting_since) if self._waiting_since is not None else 0.0
        return max(self._seconds, open_s) / self._placed

    def wait_s(self, ahead: int, placement_s: float, priority: Priority, now: float) -> float:
        """Return the seconds until a new request of a class is placed that has so many requests before it now.

        Requests that come later and get a smaller key go first, too: those of each class for as long as their keys are
        smaller on average.  ``placement_s``: between two placements.
        """
        rate = 1 / placement_s
        turns = ahead + 1.0
        later = sorted(self._overtaking(priority, now))
        coming = sum(arrivals for _, arrivals in later)
        for for_s, arrivals in later:
            if coming < rate and turns <= for_s * (rate - coming):
                break
            turns += arrivals * for_s
            coming -= arrivals
        return turns / (rate - coming if later else rate)

    def _overtaking(self, priority: Priority, now: float) -> Iterator[tuple[float, float]]:
        """Give for each class whose new requests go first: for how many seconds, and how many come per second."""
        own = self._lead.get(priority)
        if own is None:
            return
        fresh = self._memory.weight(now) / self._memory.seconds(max(now - self._since, _FIRST_S))
        for cls, lead in self._lead.items():
            if own - lead > 0:
                yield own - lead, self._arrivals[cls] * fresh
