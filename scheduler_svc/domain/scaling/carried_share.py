"""The share of what instances can do that they may carry without missing targets."""

from __future__ import annotations

#: The least that the share falls to, unless less was set as the most.
LEAST = 0.35
#: Factor of the share where targets are missed.
LOWERED = 0.9
#: By how much the share rises back, per second.
RAISED_PER_S = 1e-4
#: Seconds after a fall in which misses teach nothing: the requests came under what was there before.
LESSON_S = 120.0


class CarriedShare:
    """Falls where requests miss their targets although no engine is full, and rises slowly back."""

    __slots__ = ("_at", "_learned_at", "_most", "value")

    def __init__(self, most: float, now: float) -> None:
        """``most``: the share at first, and the most."""
        self.value = self._most = most
        self._at = now
        self._learned_at = float("-inf")

    def learn(self, carried: float, now: float, *, short: bool) -> float:
        """Take the share that is carried now, and whether targets are missed.  Returns the share to carry.

        Misses of instances that carry more than they are meant to say nothing of the share.
        """
        self.value = min(self._most, self.value + RAISED_PER_S * (now - self._at))
        self._at = now
        if short and carried <= self.value and now - self._learned_at >= LESSON_S:
            self.value = max(min(LEAST, self._most), self.value * LOWERED)
            self._learned_at = now
        return self.value
